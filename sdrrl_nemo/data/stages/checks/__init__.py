"""Judges of translations that a run has only where their engines are named."""
