"""Machine translation systems."""

from sdrrl_nemo.data.engines.translate import bergamot, llm_translate, nllb_ctranslate2, nllb_hf

__all__ = ["bergamot", "llm_translate", "nllb_ctranslate2", "nllb_hf"]
