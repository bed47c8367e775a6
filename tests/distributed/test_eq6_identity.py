"""The identity of the loss: the mean of an epoch's step losses at learning rate 0 equals Eq. 6.

The left side goes through preprocessing's tokenisation and packing, NeMo, Megatron and torchrun; the right side is
computed from the raw JSONL with plain transformers in float64 (tests/eq6.py), once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from sdrrl_nemo.data.rows import SUBSETS
from tests.eq6 import eq6_float64
from tests.launch import ROOT
from tests.tiny import pack_jsonl, tiny_model
from tests.tiny_tokenizer import TURN_END
from tests.warm import torchrun

ROWS = ROOT / "tests" / "data" / "transfer_small.jsonl"
SAMPLES = {"LL": 4, "TL": 3, "LT": 3, "TT": 2, "mt": 5, "comp": 4}
"""Of each subset: uneven, and no multiple of the batch."""
FEW = {"LL": 1, "TL": 1, "LT": 1, "TT": 1, "mt": 2, "comp": 1}
"""For the real model, whose float64 reference takes seconds a sample."""
SEQ_LENGTH = 320
TOLERANCE = 1e-5
VARIANTS = [(packed, mbs) for packed in (True, False) for mbs in (1, 2, 4)]
"""One process sees every variant. Each layout of two sees a packed and a padded one, with two micro-batch sizes, and
every variant is seen by two of them. tests/distributed/invariance.py has all of them everywhere."""
REDUCTIONS = ("sum", "token")
TIMEOUT = 1500
"""Seconds for all runs together; the machine may be busy."""
pytestmark = pytest.mark.timeout(2 * TIMEOUT)
LAYOUTS = {  # processes and overrides
    "TP1": (1, ""),
    "TP2": (2, "trainer.tp=2"),
    "TP2-SP": (2, "trainer.tp=2 trainer.sequence_parallel=true"),
    "PP2": (2, "trainer.pp=2"),
    "PP2-VPP2": (2, "trainer.pp=2 trainer.vpp=2"),
    "CP2": (2, "trainer.cp=2"),
    "DP2": (2, ""),
}
KERNELS = {  # processes and overrides; the embeddings are tied, so two stages share the sum that fused_linear adds to
    "torch": (1, "loss.kernel=torch"),
    "fused": (1, "loss.kernel=fused_linear"),
    "fused-TP2": (2, "loss.kernel=fused_linear trainer.tp=2"),
    "fused-PP2": (2, "loss.kernel=fused_linear trainer.pp=2"),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eq6")
    return _prepare(folder, tiny_model(folder / "model"), _rows(SAMPLES))


def _rows(samples: dict[str, int], shortest: bool = False) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    if shortest:
        rows.sort(key=lambda row: len(row["question"] + row["answer"]))
    chosen = [row for name in SUBSETS for row in [r for r in rows if r["subset"] == name][: samples[name]]]
    assert len(chosen) == sum(samples.values())
    return chosen


def _prepare(folder: Path, model: Path, rows: list[dict[str, str]]) -> Path:
    text = folder / "rows.jsonl"
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pack_jsonl(text, folder / "data", model, SEQ_LENGTH)
    config = {
        "run_dir": "unset",
        "model": {"hf_path": str(model), "pad_heads_to": 2},
        "data": {"path": str(folder / "data")},
        "trainer": {"precision": "fp32", "global_batch_size": 8, "num_threads": 1, "save_every": -1},
        "optim": {"lr": 0.0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def _expected(workspace: Path, reduction: str) -> tuple[float, dict[str, float]]:
    """Eq. 6 from the raw text alone: the conversation as the chat template renders it, up to its end of turn, by
    transformers."""
    model = Path(yaml.safe_load((workspace / "config.yaml").read_text())["model"]["hf_path"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    samples = []
    for line in (workspace / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        question = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        whole = tokenizer.encode(text[: text.rindex(TURN_END) + len(TURN_END)], add_special_tokens=False)
        assert whole[: len(question)] == question
        samples.append((row["subset"], question, whole[len(question) :]))
    return eq6_float64(model, samples, reduction)


@pytest.fixture(scope="module")
def expected(workspace: Path) -> tuple[float, dict[str, float]]:
    return _expected(workspace, "mean")


def _metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _mean(run: Path, key: str) -> float:
    rows = _metrics(run)
    return sum(r[key] for r in rows) / len(rows)


def _train(workspace: Path, processes: int, runs: dict[str, str]) -> None:
    overrides = [f"run_dir={workspace}/{name} {more}" for name, more in runs.items()]
    worker, config = "tests/distributed/fit_worker.py", str(workspace / "config.yaml")
    done = torchrun(processes, worker, config, *overrides, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout[-4000:]


def _layout_runs(layout: str) -> dict[str, str]:
    """Run -> overrides, of one layout."""
    number = list(LAYOUTS).index(layout)
    variants = [VARIANTS[number % 3], VARIANTS[3 + (number + 1) % 3]] if number else VARIANTS
    return {
        f"{layout}-{packed}-{mbs}": f"{LAYOUTS[layout][1]} data.packed={packed} trainer.micro_batch_size={mbs}"
        for packed, mbs in variants
    }


@pytest.fixture(scope="module")
def trained(workspace: Path) -> Path:
    """All runs, those with the same number of processes in one start: importing NeMo costs more than a run."""
    for processes in (1, 2):
        runs = {k: v for name, (n, _) in LAYOUTS.items() if n == processes for k, v in _layout_runs(name).items()}
        runs |= {k: f"{more} trainer.max_steps=4" for k, (n, more) in KERNELS.items() if n == processes}
        if processes == 1:
            runs |= {name: f"loss.sample_reduction={name}" for name in REDUCTIONS}
            runs["mean-of-subsets"] = "loss.normalise=mean"
        _train(workspace, processes, runs)
    return workspace


@pytest.mark.parametrize("layout", LAYOUTS)
def test_epoch_mean_equals_eq6(layout: str, trained: Path, expected: tuple[float, dict[str, float]]) -> None:
    loss, addends = expected
    for name in _layout_runs(layout):
        measured = _mean(trained / name, "loss")
        assert abs(measured - loss) <= TOLERANCE * loss, (name, measured, loss)
        for subset, value in addends.items():
            assert abs(_mean(trained / name, f"loss_{subset}") - value) <= TOLERANCE * value, (name, subset)


def test_the_real_model(smollm2: Path, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct itself with its 49,152 classes, TP=2 with its padded heads, packed."""
    workspace = _prepare(tmp_path, smollm2, _rows(FEW, shortest=True))
    _train(workspace, 2, {"real": "trainer.tp=2 trainer.micro_batch_size=2 trainer.global_batch_size=4"})
    loss, addends = _expected(workspace, "mean")
    assert abs(_mean(workspace / "real", "loss") - loss) <= TOLERANCE * loss
    for subset, value in addends.items():
        assert abs(_mean(workspace / "real", f"loss_{subset}") - value) <= TOLERANCE * value, subset


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_other_reductions(reduction: str, trained: Path) -> None:
    loss, _ = _expected(trained, reduction)
    assert abs(_mean(trained / reduction, "loss") - loss) <= TOLERANCE * loss


def test_a_mean_over_subsets_is_eq6_divided_by_their_number(trained: Path) -> None:
    """Losses, addends and gradient norms of every step, against the run that adds up."""
    added = _metrics(trained / "TP1-True-1")
    divided = _metrics(trained / "mean-of-subsets")
    assert len(added) == len(divided)
    for one, other in zip(added, divided, strict=True):
        for key, value in one.items():
            if key.startswith("loss") or key == "grad_norm":
                assert other[key] * len(SAMPLES) == pytest.approx(value, rel=TOLERANCE), key


def test_a_mean_of_local_means_would_be_caught(workspace: Path, expected: tuple[float, dict[str, float]]) -> None:
    """The set is uneven enough that the usual token mean per batch is far from Eq. 6: the identity is no accident."""
    uneven = _expected(workspace, "token")[0]
    assert abs(uneven - expected[0]) > 20 * TOLERANCE * expected[0]


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_kernels(key: str, trained: Path) -> None:
    """Every loss.kernel gives the losses and gradient norms of torch, on one rank, two slices of the vocabulary, two
    stages."""
    want, *others = ([r[key] for r in _metrics(trained / name)] for name in KERNELS)
    assert len(want) == 4 and want[0] > 0
    for name, found in zip([*KERNELS][1:], others, strict=True):
        assert found == pytest.approx(want, rel=TOLERANCE), name


def test_triton_kernel(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Triton kernel inside the recipe, in Triton's interpreter: like the torch kernel for a step."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    small = "trainer.max_steps=1 trainer.global_batch_size=2 data.packed=false"
    runs = {f"interpreted-{k}": f"loss.kernel={k} {small}" for k in ("torch", "triton")}
    _train(workspace, 1, runs)
    torch_row, triton_row = (_metrics(workspace / name)[0] for name in runs)
    for key, value in torch_row.items():
        if key.startswith("loss") or key == "grad_norm":
            assert triton_row[key] == pytest.approx(value, rel=TOLERANCE), key
