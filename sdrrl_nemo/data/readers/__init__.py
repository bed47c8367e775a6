"""Instruction sets in the formats people have: Alpaca, ShareGPT, messages; JSON, JSONL, CSV, Parquet, HF datasets."""

from sdrrl_nemo.data.readers.formats import FORMATS, Example, Reading, Skipped, read_examples
from sdrrl_nemo.data.readers.records import content_of

__all__ = ["FORMATS", "Example", "Reading", "Skipped", "content_of", "read_examples"]
