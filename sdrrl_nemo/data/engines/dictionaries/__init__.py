"""Bilingual dictionaries for code-switching."""

from sdrrl_nemo.data.engines.dictionaries import freedict, muse

__all__ = ["freedict", "muse"]
