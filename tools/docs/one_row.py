#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Write ARCHITECTURE.md's section that follows one question through every stage, from JSONL to the loss.

    tools/preprocess_sdrrl.py --config configs/data/demo_por_short.yaml
    tools/docs/one_row.py --data work/data/demo_por_short [--write ARCHITECTURE.md]

Everything shown is read from the finished folder; the loss is that of the base model on one sample, in float32.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, read_json, read_jsonl

TITLE = "One row, from JSONL to loss"
HEAD = """One question of the demo (`configs/data/demo_por_short.yaml`) after every stage: what a stage adds or changes,
long values cut short (…), the rest left out. `sdrrl_nemo/data/rows.py` has the keys' meanings. Written by
`tools/docs/one_row.py`.
"""
STAGES = "sdrrl_nemo/data/stages"
QUESTION = "What is a refugee?"
"""One that the short demo trains on, with the model's own answer and a switched word."""
LONGEST = 78
"""Characters of a text, and of a list of numbers, that are shown."""


@dataclass(frozen=True)
class Step:
    """One item of the section: which code, what it does in a few words, and what the row is afterwards."""

    place: str
    says: str
    shown: dict[str, Any]


class Run:
    """The finished stages of one run, for one question."""

    def __init__(self, directory: Path, question: str) -> None:
        self.directory = directory
        self.stages = {s["name"]: s["directory"] for s in read_json(directory / "stats.json")["stages"]}
        found = [row for row in self._rows("ingest") if row["question"] == question]
        if not found:
            raise SdrrlError(f"{directory}: no question {question!r} here; name another with --question")
        self.question = found[0]

    def row(self, stage: str, combination: str | None = None) -> dict[str, Any]:
        """The question's row after a stage; of its samples the one of ``combination``."""
        for row in self._rows(stage):
            ours = self.question["key"] in (row.get("source_key"), row.get("key"))
            if ours and combination in (None, row.get("combination")):
                return row
        raise SdrrlError(f"{self.directory}: the question is gone after stage {stage}; name another with --question")

    def _rows(self, stage: str) -> Iterator[dict[str, Any]]:
        if stage not in self.stages:
            raise SdrrlError(f"{self.directory}: stage '{stage}' did not run here; this tool follows the method sdrrl")
        for path in sorted((self.directory / self.stages[stage]).glob("*.rows.jsonl")):
            yield from (row for _, row in read_jsonl(path))


def steps_of_data(run: Run, instructions: Path, combination: str) -> list[Step]:
    """From the line of the instruction set to token ids."""
    raw = next((r for _, r in read_jsonl(instructions) if r["instruction"] == run.question["question"]), None)
    if raw is None:
        raise SdrrlError(f"{instructions}: no such instruction; name the set with --instructions")
    chain = [
        (f"{STAGES}/ingest.py:Ingest", "ingest", "reads the line and says whether training sees it:"),
        (f"{STAGES}/generate.py:Generate", "generate", "asks the model, since the draw of Eq. 4 wants ŷ here:"),
        (f"{STAGES}/synthesise.py:Sample", "sample", "puts ŷ in the place of y: a row of D_synth (Eq. 4):"),
        (f"{STAGES}/translate.py:Translate", "translate", "translates question and answer:"),
        (f"{STAGES}/judge.py:Quality", "quality", "scores both translations and keeps those not below τ:"),
        (f"{STAGES}/judge.py:Heuristics", "heuristics", "finds nothing broken:"),
        (f"{STAGES}/judge.py:LanguageId", "language-id", "finds the target language:"),
        (f"{STAGES}/deduplicate.py:Duplicates", "duplicates", "finds the question once:"),
        (f"{STAGES}/combine.py:Subsets", "subsets", f"makes LL, TL, LT and TT of it; from here on {combination}:"),
        (f"{STAGES}/code_switch.py:CodeSwitch", "code-switch", "switches words of the question (Eq. 5):"),
        (f"{STAGES}/answer_language.py:AnswerLanguage", "answer-language", "says which language to answer in:"),
        (f"{STAGES}/order.py:Order", "order", "names the sample by its content, and so its place:"),
        (f"{STAGES}/tokenize.py:Tokenize", "tokenize", "renders it; `spans` are the tokens with loss:"),
    ]
    steps = [Step("sdrrl_nemo/data/readers/records.py:records", f"gives the line of `{instructions}`:", raw)]
    before: dict[str, Any] = {}
    for place, stage, says in chain:
        after = run.row(stage, combination if stage not in _BEFORE_SAMPLES else None)
        steps.append(Step(place, says, {k: v for k, v in after.items() if before.get(k, ...) != v}))
        before = after
    return steps


_BEFORE_SAMPLES = (
    "ingest",
    "generate",
    "sample",
    "translate",
    "quality",
    "heuristics",
    "language-id",
    "duplicates",
)


def steps_of_training(run: Run, combination: str, global_batch_size: int, model: str) -> list[Step]:
    """From token ids to the sample's part of the loss vector."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from sdrrl_kernels.api import cross_entropy
    from sdrrl_nemo.data.packing.packed import PackedDataset
    from sdrrl_nemo.train.batches import MicroBatches, Schedule

    dataset = PackedDataset(run.directory / "packed")
    key = int(run.row("tokenize", combination)["key"], 16)
    sample = dataset.sample_key.tolist().index(key)
    pack = next(p for p in range(len(dataset)) if sample in dataset.samples_of(p))
    schedule = Schedule(len(dataset), global_batch_size, 0)
    alone = MicroBatches(dataset, packed=False, micro_batch_size=1, reduction="mean", schedule=schedule)
    batch = {k: v[:, : int(dataset.lengths[sample])] for k, v in alone.build(np.asarray([sample])).items()}
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(batch["tokens"]).logits[0]
    count = len(dataset.subset_names)
    out = cross_entropy(logits, batch["labels"][0], batch["weights"][0], batch["subset_ids"][0], count)
    d, n = int(dataset.subset[sample]), int(dataset.answer_tokens[sample])
    size, weight = int(dataset.subset_sizes()[d]), float(alone.weights[sample])
    begin = int(dataset.offsets[sample])
    samples = dataset.samples_of(pack)
    vector = {"loss": float(out.loss), **dict(zip(dataset.subset_names, out.subset_sums.tolist(), strict=True))}
    return [
        Step(
            "sdrrl_nemo/data/packing/best_fit.py:pack_windows",
            f"puts it with others into a pack of at most {dataset.manifest['seq_length']} tokens:",
            {
                "pack": pack,
                "lengths": dataset.lengths[samples.start : samples.stop].tolist(),
                "ours": samples.index(sample),
            },
        ),
        Step(
            "sdrrl_nemo/data/packing/packed.py:PackedWriter",
            "writes ids and loss mask, 0 on the question, 1 on\n    the answer and its end:",
            {"loss_mask": dataset.loss_mask[begin : begin + int(dataset.lengths[sample])].tolist()},
        ),
        Step(
            "sdrrl_nemo/train/batches.py:sample_weights",
            f"gives each of its answer tokens w = S / (|D_{combination}| · answer tokens)\n    (Eq. 6), "
            f"S = ⌈{len(dataset)} packs / {global_batch_size} a step⌉:",
            {"S": schedule.steps_per_epoch, f"|D_{combination}|": size, "answer_tokens": n, "w": round(weight, 6)},
        ),
        Step(
            "sdrrl_nemo/train/batches.py:MicroBatches.build",
            "lays ids, labels (the next token, -100 where there\n    is no loss) and weights out, here from the "
            "last question token on:",
            {
                "tokens": batch["tokens"][0].tolist()[-n - 1 :],
                "labels": batch["labels"][0].tolist()[-n - 1 :],
                "weights": [round(x, 6) for x in batch["weights"][0].tolist()[-n - 1 :]],
            },
        ),
        Step(
            "sdrrl_nemo/train/loss.py:attach_loss",
            f"makes the model give the loss vector [total, one addend per subset].\n    This sample adds w · Σ "
            f"cross-entropy, at the base model {weight:.6f} · {float(out.loss) / weight:.4f} nats:",
            {name: round(value, 4) for name, value in vector.items()},
        ),
    ]


def shortened(value: Any) -> str:
    """JSON of a value in one line: long texts lose their end, long lists of numbers their middle."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= LONGEST else value[: LONGEST - 1] + "…", ensure_ascii=False)
    if isinstance(value, list):
        whole = [json.dumps(x) for x in value]
        if len(", ".join(whole)) > LONGEST:
            whole = [*whole[:7], "…", *whole[-5:]]
        return f"[{', '.join(whole)}]"
    return json.dumps(value, ensure_ascii=False)


def item(number: int, step: Step) -> str:
    """One item of the list, in Markdown."""
    margin = " " * (len(str(number)) + 2)
    if not step.shown:
        return f"{number}. `{step.place}` {step.says.removesuffix(':')}: nothing changes.\n"
    lines = [f"{json.dumps(k, ensure_ascii=False)}: {shortened(v)}" for k, v in step.shown.items()]
    block = "\n".join(margin + line for line in ["```text", *lines, "```"])
    return f"{number}. `{step.place}` {step.says}\n{block}\n"


def section(steps: Sequence[Step]) -> str:
    """The whole section with its heading."""
    items = "".join(item(n, step) for n, step in enumerate(steps, 1))
    return f"## {TITLE}\n\n{HEAD}\n{items}"


def replaced(page: str, text: str) -> str:
    """``page`` with the section in the place of its older self, or before the section of the data on disk."""
    old = re.compile(rf"^## {re.escape(TITLE)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(page):
        return old.sub(lambda _: text + "\n", page)
    return page.replace("## Data on disk\n", f"{text}\n## Data on disk\n", 1)


def main(argv: Sequence[str]) -> int:
    """Parse, follow the row, print or write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="output_dir of a finished preprocessing run")
    parser.add_argument("--question", default=QUESTION, help="question to follow")
    parser.add_argument("--combination", default="TL", choices=("LL", "TL", "LT", "TT"), help="sample to follow")
    parser.add_argument("--instructions", type=Path, default=Path("data/instructions_en.jsonl"))
    parser.add_argument("--model", default="work/models/SmolLM2-135M-Instruct", help="Hugging Face folder")
    parser.add_argument("--global-batch-size", type=int, default=4, help="packs a step (default: the demo's 4)")
    parser.add_argument("--write", type=Path, help="page to put the section into; default: print it")
    arguments = parser.parse_args(argv)
    rows = Run(arguments.data, arguments.question)
    text = section(
        [
            *steps_of_data(rows, arguments.instructions, arguments.combination),
            *steps_of_training(rows, arguments.combination, arguments.global_batch_size, arguments.model),
        ]
    )
    if arguments.write is None:
        print(text, end="")
        return 0
    page = arguments.write.read_text(encoding="utf-8")
    with atomic_write(arguments.write) as f:
        f.write(replaced(page, text))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
