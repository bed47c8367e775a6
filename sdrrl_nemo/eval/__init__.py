"""Scores of Hugging Face model folders; evaluation.py is the entry, suites/ has one file for each thing measured."""
