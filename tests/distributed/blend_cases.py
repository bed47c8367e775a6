"""Blends of three languages, trained in every layout and compared with the weighted Eq. 6.

    python -m tests.distributed.blend_cases

The left side goes through packed sets, NeMo, Megatron and torchrun at learning rate 0; the right side is computed
sample by sample with plain transformers in float64 from the token ids that this file makes up, and knows nothing of
packs, draws or weights. The command writes docs/results/blend_identity.json; test_blend_identity.py has a part of it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.packing.blend_files import write_blend
from sdrrl_nemo.data.packing.packed import PackedWriter, TokenizedSample
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenizer_sha256
from tests.launch import ROOT
from tests.tiny import tiny_model
from tests.warm import torchrun

SEQ_LENGTH = 48
TOLERANCE = 1e-5
TIMEOUT = 1800
SETS = {  # prefix -> samples of each subset
    "por/train": {"LL": 6, "TT": 4, "mt": 5},
    "jpn/train": {"LL": 2, "TT": 3, "mt": 2},
    "kor/eng-kor/LL": {"LL": 4},
    "kor/eng-kor/mt": {"mt": 3},
}
PAIRS = {"por": "eng-por", "jpn": "eng-jpn", "kor": "eng-kor"}


@dataclass(frozen=True)
class Sample:
    """A sample as it was made up. ``weight``: of kor/eng-kor/mt not 1."""

    subset: str
    tokens: list[int]
    question: int
    weight: float


@dataclass(frozen=True)
class Mixture:
    """Overrides of a run, and what they make of Eq. 6."""

    overrides: str = ""
    objective: tuple[tuple[str, float], ...] = ()
    """Beginning of subset names -> lambda_d."""
    reduction: str = "mean"
    sampling: tuple[float, ...] = ()
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)


MIXTURES = {
    "proportional": Mixture(),
    "equal": Mixture("data.sampling=equal data.epoch_rows=30"),
    "temperature": Mixture(
        'data.sampling=temperature data.temperature=3 trainer.epochs=4 data.objective={"TT*":0.25,"LL.eng-jpn":2}',
        objective=(("TT", 0.25), ("LL.eng-jpn", 2.0)),
    ),
    # an epoch goes through part of the large sets only: exact over all five
    "numbers": Mixture(
        "data.sampling=numbers data.epoch_rows=9 trainer.epochs=5", sampling=(1.0, 3.0, 1.5), weights=(1.0, 0.5, 2.0)
    ),
    "token": Mixture(
        "loss.sample_reduction=token data.sampling=numbers trainer.epochs=5",
        reduction="token",
        sampling=(1.0, 1.0, 4.0),
    ),
    "sum": Mixture("loss.sample_reduction=sum data.sampling=equal trainer.epochs=4", reduction="sum"),
}
LAYOUTS = {  # processes and overrides
    "1": (1, ""),
    "1 padded": (1, "data.packed=false trainer.micro_batch_size=2"),
    "TP2 SP": (2, "trainer.tp=2 trainer.sequence_parallel=true"),
    "PP2": (2, "trainer.pp=2"),
    "CP2": (2, "trainer.cp=2"),
    "DP2": (2, ""),
}


@dataclass(frozen=True)
class Workspace:
    """Model, sets and configuration under a folder, and the made-up samples by prefix of their set."""

    folder: Path
    samples: dict[str, list[Sample]]

    def blend(self, mixture: Mixture) -> str:
        entries = []
        for i, name in enumerate(PAIRS):
            sampling = {"sampling": mixture.sampling[i]} if mixture.sampling else {}
            entries.append({"path": str(self.folder / name), "weight": mixture.weights[i], **sampling})
        return f"data.blend={json.dumps(entries, separators=(',', ':'))} {mixture.overrides}"

    def train(self, processes: int, runs: dict[str, str]) -> None:
        words = [f"run_dir={self.folder}/runs/{name} {more}" for name, more in runs.items()]
        worker, config = "tests/distributed/fit_worker.py", str(self.folder / "config.yaml")
        done = torchrun(processes, worker, config, *words, timeout=TIMEOUT)
        assert done.returncode == 0, done.stdout[-4000:]


Losses = dict[str, list[tuple[Sample, float]]]
"""Subset -> its samples, each with the summed cross-entropy of its answer."""


def make_workspace(folder: Path) -> Workspace:
    """Three languages preprocessed apart: two mixed sets, and one by subset whose samples have weights."""
    model = tiny_model(folder / "model")
    made = Workspace(folder, {prefix: _write(folder, prefix, model, number) for number, prefix in enumerate(SETS)})
    write_blend(folder / "kor", [{"prefix": p, "weight": 1} for p in ("eng-kor/LL", "eng-kor/mt")], {})
    config = {
        "run_dir": "unset",
        "model": {"hf_path": str(model), "pad_heads_to": 2},
        "trainer": {"precision": "fp32", "global_batch_size": 8, "num_threads": 1, "save_every": -1},
        "optim": {"lr": 0.0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return made


def _write(folder: Path, prefix: str, model: Path, number: int) -> list[Sample]:
    """A packed set of random samples, packed in order; returns them."""
    rng, counts, pair = np.random.default_rng(number), SETS[prefix], PAIRS[prefix.split("/", maxsplit=1)[0]]
    tokenizer = load_tokenizer(model)
    path = folder / prefix
    writer = PackedWriter(path.parent, path.name, len(tokenizer), SEQ_LENGTH, tuple(counts))
    samples: list[Sample] = []
    pack: list[TokenizedSample] = []
    for i, name in enumerate(rng.permutation([name for name, n in counts.items() for _ in range(n)])):
        question, answer = int(rng.integers(2, 9)), int(rng.integers(1, 14))
        tokens = rng.integers(3, len(tokenizer), question + answer).astype(np.int32)
        weight = 1.0 + i if path.name == "mt" else 1.0
        mask = np.asarray([0] * question + [1] * answer, np.uint8)
        if sum(len(s.tokens) for s in pack) + len(tokens) > SEQ_LENGTH:
            writer.add_pack(pack)
            pack = []
        pack.append(TokenizedSample(f"{1000 * number + i + 1:016x}", str(name), tokens, mask, weight))
        samples.append(Sample(f"{name}.{pair}", tokens.tolist(), question, weight))
    writer.add_pack(pack)
    writer.finish({"tokenizer_sha256": tokenizer_sha256(tokenizer), "pairs": [pair]})
    return samples


def float64_losses(work: Workspace) -> Losses:
    """By plain transformers, one sample at a time; rows of the model that are no token have no part in the softmax."""
    model = AutoModelForCausalLM.from_pretrained(work.folder / "model", dtype=torch.float64).eval()
    known = len(AutoTokenizer.from_pretrained(work.folder / "model"))
    found: Losses = {}
    with torch.no_grad():
        for s in (s for samples in work.samples.values() for s in samples):
            logits = model(torch.tensor([s.tokens])).logits[0, s.question - 1 : -1, :known]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(s.tokens[s.question :]), reduction="sum")
            found.setdefault(s.subset, []).append((s, float(loss)))
    return found


def addends(mixture: Mixture, losses: Losses) -> dict[str, float]:
    """lambda_d times the weighted mean of each subset."""
    out = {}
    for subset, samples in losses.items():
        objective = mixture.weights[list(PAIRS.values()).index(subset.partition(".")[2])]
        named = [value for begins, value in mixture.objective if subset.startswith(begins)]
        above = below = 0.0
        for s, loss in samples:
            answer = len(s.tokens) - s.question
            above += s.weight * (loss / answer if mixture.reduction == "mean" else loss)
            below += s.weight * (answer if mixture.reduction == "token" else 1)
        out[subset] = objective * (named or [1.0])[-1] * above / below
    return out


def rows_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def largest_difference(run: Path, expected: dict[str, float]) -> float:
    """Of the mean of the step losses and of each subset's addend, relative."""
    rows, wanted = rows_of(run), {"loss": sum(expected.values()), **{f"loss_{d}": x for d, x in expected.items()}}
    return max(abs(sum(r[key] for r in rows) / len(rows) - value) / value for key, value in wanted.items())


PADDED = {"epoch_rows=30": "epoch_rows=60", "epoch_rows=9 ": "epoch_rows=30 "}
"""A row of a padded run is a sample, of which there are more than packs, so that an epoch needs more of them."""


def runs_of(work: Workspace, processes: int) -> dict[str, str]:
    """Every mixture in every layout of so many processes."""
    runs = {}
    for layout, (n, more) in LAYOUTS.items():
        for name, mixture in MIXTURES.items() if n == processes else ():
            overrides = f"{work.blend(mixture)} {more}"
            for of_packs, of_samples in PADDED.items() if "packed=false" in more else ():
                overrides = overrides.replace(of_packs, of_samples)
            runs[f"{name}, {layout}"] = overrides
    return runs


def main() -> None:
    """All mixtures in all layouts."""
    with tempfile.TemporaryDirectory() as folder:
        work = make_workspace(Path(folder))
        losses = float64_losses(work)
        found = {}
        for processes in (1, 2):
            runs = runs_of(work, processes)
            named = {f"{processes}-{i}": overrides for i, overrides in enumerate(runs.values())}
            work.train(processes, named)
            for title, name in zip(runs, named, strict=True):
                mixture = MIXTURES[title.partition(",")[0]]
                found[title] = largest_difference(work.folder / "runs" / name, addends(mixture, losses))
                print(f"{title}: {found[title]:.2e}", flush=True)
    result = {"command": "python -m tests.distributed.blend_cases", "largest relative difference": found}
    write_json(ROOT / "docs/results/blend_identity.json", {**result, "provenance": provenance()})


if __name__ == "__main__":
    main()
