"""Machine translation systems."""

from sdrrl_nemo.data.engines.translate import apertium as apertium
from sdrrl_nemo.data.engines.translate import bergamot as bergamot
from sdrrl_nemo.data.engines.translate import llm_translate as llm_translate
from sdrrl_nemo.data.engines.translate import nllb_ctranslate2 as nllb_ctranslate2
from sdrrl_nemo.data.engines.translate import nllb_hf as nllb_hf
