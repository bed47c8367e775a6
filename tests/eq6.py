"""Eq. 6 computed independently: float64, plain transformers, one sample at a time; blind to packing and weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdrrl_nemo.data.packing.packed import PackedDataset
from sdrrl_nemo.data.rows import SUBSETS


def eq6_float64(
    model_folder: Path, samples: Iterable[tuple[str, list[int], list[int]]], reduction: str = "mean"
) -> tuple[float, dict[str, float]]:
    """(L, addend of each subset) over samples (subset, question ids, answer ids).

    Rows of the model that are no token of its tokenizer have no part in the softmax.
    """
    tokens = max(AutoTokenizer.from_pretrained(model_folder).get_vocab().values()) + 1
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64).eval()
    losses: dict[str, list[float]] = defaultdict(list)
    answer_tokens: dict[str, int] = defaultdict(int)
    with torch.no_grad():
        for subset, question, answer in samples:
            logits = model(torch.tensor([question + answer])).logits[0, len(question) - 1 : -1, :tokens]
            token_losses = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")
            losses[subset].append(float(token_losses.mean() if reduction == "mean" else token_losses.sum()))
            answer_tokens[subset] += len(answer)
    addends = {
        d: sum(losses[d]) / (answer_tokens[d] if reduction == "token" else len(losses[d])) if losses[d] else 0.0
        for d in SUBSETS
    }
    return sum(addends.values()), addends


def samples_of(packed: PackedDataset) -> list[tuple[str, list[int], list[int]]]:
    """The samples of a packed set, read back through mcore's IndexedDataset."""
    out = []
    for i in range(len(packed.lengths)):
        tokens = np.asarray(packed.indexed[i], np.int64).tolist()
        start = len(tokens) - int(packed.answer_tokens[i])
        out.append((SUBSETS[packed.subset[i]], tokens[:start], tokens[start:]))
    return out
