"""Scores of a Hugging Face model folder: loss, translation, off-target rate, representations."""
