"""Instruction sets in the formats people have: Alpaca, ShareGPT, messages; JSON, JSONL, Parquet, HF datasets."""

from sdrrl_nemo.data.readers.formats import FORMATS, Example, Skipped, read_examples
from sdrrl_nemo.data.readers.records import content_of

__all__ = ["FORMATS", "Example", "Skipped", "content_of", "read_examples"]
