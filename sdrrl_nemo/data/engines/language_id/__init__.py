"""Language identifiers."""

from sdrrl_nemo.data.engines.language_id import cld3, fasttext

__all__ = ["cld3", "fasttext"]
