"""Bilingual dictionaries for code-switching."""

from sdrrl_nemo.data.engines.dictionaries import freedict as freedict
from sdrrl_nemo.data.engines.dictionaries import muse as muse
