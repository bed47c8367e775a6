"""megatron-core's ``.bin``/``.idx`` files, imported so that it works on a machine without a GPU, and written lean."""

from __future__ import annotations

from array import array
from pathlib import Path

from sdrrl_nemo.compat.login_node import protect
from sdrrl_nemo.compat.registry import register

protect()
from megatron.core.datasets.indexed_dataset import (  # noqa: E402 - not before protect()
    DType,
    IndexedDataset,
    IndexedDatasetBuilder,
)

__all__ = ["DType", "IndexedDataset", "builder"]
_LEAN = register("lean-index", "megatron-core", "two machine integers a sample while a set is written, not two objects")


def builder(path: Path, vocab_size: int) -> IndexedDatasetBuilder:
    """Writer of ``path`` with the smallest type that holds the vocabulary.

    It keeps two numbers a sample until it writes the index: as machine integers, not as objects.
    """
    made = IndexedDatasetBuilder(str(path), dtype=DType.optimal_dtype(vocab_size))
    _LEAN.get(IndexedDatasetBuilder, "__init__", source="29110091d9c4")
    _LEAN.replace(made, "sequence_lengths", array("i"))
    _LEAN.replace(made, "document_indices", array("q", [0]))
    return made
