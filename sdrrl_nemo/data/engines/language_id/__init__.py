"""Language identifiers."""

from sdrrl_nemo.data.engines.language_id import cld3 as cld3
from sdrrl_nemo.data.engines.language_id import fasttext as fasttext
