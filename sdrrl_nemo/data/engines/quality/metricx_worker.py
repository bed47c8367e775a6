"""Scores translations with MetricX-24 without references; run by the Python of COMET's own environment, not imported.

The protocol is that of comet_worker.py. First request: {"model", "tokenizer", "device", "precision", "batch_size"}.
Scores are errors as the model gives them, 0 (none) to 25; the engine turns them. Input and output are those of
google-research/metricx: metricx24/predict.py (its text, no end token) and models.py (the logit of <extra_id_10> at the
first step of mT5's decoder, clipped).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

START, ANSWER = 0, 250089
"""The decoder's only input, and the id of <extra_id_10> in mT5's vocabulary, whose logit is the score."""
WORST = 25.0


def text_of(row: dict[str, str]) -> str:
    """The model's input for a row {"src", "mt"}: reference-free, the text ends after the candidate."""
    return "source: " + row["src"] + " candidate: " + row["mt"]


def load(options: dict[str, Any]) -> Any:
    """(model, tokenizer) of the folders that the options name, ready to score, without asking a hub for anything."""
    for what in ("model", "tokenizer"):
        if not os.path.isdir(options[what]):
            raise ValueError(f"the {what} '{options[what]}' is no folder here; download it and correct '{what}'")
    import torch
    from transformers import AutoTokenizer, MT5ForConditionalGeneration

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[options["precision"]]
    # MetricX's own class has the same weights under the same names; only what it returns differs.
    model, found = MT5ForConditionalGeneration.from_pretrained(
        options["model"], dtype=dtype, local_files_only=True, output_loading_info=True
    )
    if found["missing_keys"] or found["mismatched_keys"]:
        raise ValueError(f"{options['model']}: weights are missing: {sorted(found['missing_keys'])[:3]}")
    if model.config.vocab_size <= ANSWER:
        raise ValueError(f"{options['model']}: {model.config.vocab_size} tokens, so no MetricX (mT5 has 250,112)")
    tokenizer = AutoTokenizer.from_pretrained(options["tokenizer"], local_files_only=True)
    return model.eval().to(options["device"]), tokenizer


def encoded(tokenizer: Any, rows: list[dict[str, str]]) -> list[list[int]]:
    """Token ids of each row, without the end token, as predict.py takes it off."""
    return [list(ids)[:-1] for ids in tokenizer([text_of(row) for row in rows])["input_ids"]]


def score(loaded: Any, rows: list[dict[str, str]], batch_size: int) -> list[float]:
    """The predicted error of each row, 0 to 25. Rows of like length share a batch, so that little is padded."""
    import torch

    model, tokenizer = loaded
    device = next(model.parameters()).device
    ids = encoded(tokenizer, rows)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    scores = [0.0] * len(ids)
    with torch.no_grad():
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            longest = len(ids[part[0]])
            padded = [ids[i] + [0] * (longest - len(ids[i])) for i in part]
            mask = [[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in part]
            logits = model(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                decoder_input_ids=torch.full((len(part), 1), START, device=device),
            ).logits[:, 0, ANSWER]
            for i, value in zip(part, logits.float().clamp(0, WORST).cpu().tolist(), strict=True):
                scores[i] = value
    return scores


def lengths(loaded: Any, rows: list[dict[str, str]]) -> list[int]:
    """Tokens of each row as the model reads it."""
    return [len(ids) for ids in encoded(loaded[1], rows)] if rows else []


def main() -> None:
    """Serve; comet_worker.py is loaded by its path, for this program runs isolated."""
    found = importlib.util.spec_from_file_location("comet_worker", Path(__file__).with_name("comet_worker.py"))
    assert found is not None and found.loader is not None
    pipe = importlib.util.module_from_spec(found)
    found.loader.exec_module(pipe)
    pipe.serve(load, score, lengths, "transformers")


if __name__ == "__main__":
    main()
