"""Parallel corpora."""

from sdrrl_nemo.data.engines.corpora import aligned as aligned
from sdrrl_nemo.data.engines.corpora import gnome_help as gnome_help
from sdrrl_nemo.data.engines.corpora import tsv as tsv
