"""Parallel corpora."""

from sdrrl_nemo.data.engines.corpora import aligned, gnome_help, tsv

__all__ = ["aligned", "gnome_help", "tsv"]
