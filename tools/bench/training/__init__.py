"""Measurements of the parts of a training step that one process can show by itself."""
