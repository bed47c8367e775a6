"""Samples into packs of a fixed length, and the files that training reads."""
