"""tools/preprocess_sdrrl.py as a user runs it: finished output, restart after SIGKILL, lock, errors.

``run`` starts it as a user does; processes that are only there to be killed, or to say one sentence, are forked.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sdrrl_nemo.data.packing.packed import PackedDataset  # noqa: E402
from sdrrl_nemo.data.rows import SUBSETS  # noqa: E402
from sdrrl_nemo.data.text.tokenizer import load_tokenizer, tokenize, tokenizer_sha256  # noqa: E402
from tests.unit.data.tiny_run import tiny_config  # noqa: E402
from tests.warm import Forked  # noqa: E402

TOOL = str(ROOT / "tools/preprocess_sdrrl.py")


def run(config: Path, *overrides: str) -> tuple[int, str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, TOOL, "--config", str(config), *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=config.parent,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def forked(config: Path, log: Path) -> Forked:
    """The tool in a process that has its imports done."""
    return Forked(TOOL, "--config", str(config), log=log, folder=config.parent)


def run_here(config: Path, *overrides: str) -> int:
    """The tool in this process, which has Megatron imported: runs that nobody kills."""
    from sdrrl_nemo.common.cli import run as run_main
    from tools.preprocess_sdrrl import main

    return run_main(main, ["--config", str(config), *overrides])


def final_bytes(output: Path) -> dict[str, bytes]:
    """Everything but the stages' own directories and stats.json, whose seconds differ."""
    return {
        str(p.relative_to(output)): p.read_bytes()
        for p in sorted(output.rglob("*"))
        if p.is_file() and "stages" not in p.relative_to(output).parts and p.name not in ("stats.json", ".lock")
    }


def counts(output: Path) -> dict[str, object]:
    stats = json.loads((output / "stats.json").read_text())
    for stage in stats["stages"]:
        del stage["seconds"]
    return stats  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(tmp_path_factory.mktemp("tiny"))
    code, out, err = run(config)
    assert code == 0, err
    assert "CC0-1.0" in out
    assert "efficiency" in out
    return config


def test_output_is_what_the_contract_says(finished: Path) -> None:
    output = finished.parent / "out"
    stats = counts(output)
    for stage in stats["stages"]:  # type: ignore[attr-defined]
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values())
    rows = {}
    for line in (output / "transfer_set.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row.keys() >= {
            "key",
            "subset",
            "question",
            "answer",
            "question_language",
            "answer_language",
            "source_key",
        }
        rows[int(row["key"], 16)] = row
    tokenizer = load_tokenizer(finished.parent / "model")
    packed = PackedDataset(output / "packed", tokenizer_sha256=tokenizer_sha256(tokenizer))
    seen = []
    for i in range(len(packed)):
        pack = packed[i]
        starts = np.cumsum(pack.lengths) - pack.lengths
        for key, start_, n, subset in zip(pack.sample_key, starts, pack.lengths, pack.subset, strict=True):
            row = rows[int(key)]
            [(tokens, prompt)] = tokenize(tokenizer, [row["question"]], [row["answer"]])
            span = slice(int(start_), int(start_ + n))
            assert pack.tokens[span].tolist() == tokens
            assert pack.loss_mask[span].tolist() == [0] * prompt + [1] * (len(tokens) - prompt)
            assert SUBSETS[subset] == row["subset"]
            seen.append(int(key))
    assert sorted(seen) == sorted(rows)
    sizes = dict(zip(SUBSETS, packed.subset_sizes().tolist(), strict=True))
    assert {d: s["samples"] for d, s in stats["subsets"].items()} == sizes  # type: ignore[attr-defined]
    assert all(s["weight"] * s["samples"] == pytest.approx(1) for s in stats["subsets"].values())  # type: ignore[attr-defined]


def test_held_out_rows_stay_out_of_training(finished: Path) -> None:
    output = finished.parent / "out"

    def read(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (output / name).read_text().splitlines()]

    held = "heldout/eng-por"
    rows, questions, pairs = read("transfer_set.jsonl"), read(f"{held}/questions.jsonl"), read(f"{held}/pairs.jsonl")
    assert {tuple(sorted(q)) for q in questions} == {("answer", "answer_target", "key", "question", "question_target")}
    assert {tuple(sorted(p)) for p in pairs} == {("key", "source", "target")}
    assert len(pairs) == 10
    used = {r["source_key"] for r in rows}
    assert not used & {r["key"] for r in questions + pairs}
    assert not {r["answer"] for r in rows} & {text for p in pairs for text in (p["source"], p["target"])}


def test_validation_set_shares_no_question_with_training(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = finished.parent / "split"
    fraction = "packing.validation_fraction"
    assert run_here(finished, f"output_dir={output}", f"{fraction}=0.3") == 0
    whole = [json.loads(line) for line in (finished.parent / "out/transfer_set.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (output / "transfer_set.jsonl").read_text().splitlines()]
    assert [r["key"] for r in rows] == [r["key"] for r in whole]
    sets = {name: PackedDataset(output / "packed", name) for name in ("train", "validation")}
    for name, packed in sets.items():
        assert sorted(packed.sample_key.tolist()) == sorted(int(r["key"], 16) for r in rows if r["split"] == name)
        assert packed.subset_sizes().min() > 0
    sources = {name: {r["source_key"] for r in rows if r["split"] == name} for name in sets}
    assert not sources["train"] & sources["validation"]
    assert len(sources["validation"]) / len(sources["train"] | sources["validation"]) == pytest.approx(0.3, abs=0.15)
    assert run_here(finished, f"output_dir={output}", f"{fraction}=1e-9") == 2
    assert "packing.validation_fraction: subset" in capsys.readouterr().err
    assert run_here(finished, f"output_dir={output}") == 0
    assert not list((output / "packed").glob("validation.*"))


@pytest.mark.parametrize(
    ("subsets", "left"), [("combinations=[]", ["mt", "comp"]), ("parallel=[]", ["LL", "TL", "LT", "TT"])]
)
def test_half_of_the_subsets_alone(tmp_path: Path, subsets: str, left: list[str]) -> None:
    """Table 6's "only D_mt and D_comp" asks the model nothing; its counterpart needs no training pair."""
    config = tiny_config(tmp_path, rows=20)
    assert run_here(config, f"subsets.{subsets}", "instructions.held_out=4") == 0
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert sorted(stats["subsets"]) == sorted(left)
    assert all(s["samples"] for s in stats["subsets"].values())


def test_second_run_says_so_quickly(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = final_bytes(finished.parent / "out")
    assert run_here(finished) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert final_bytes(finished.parent / "out") == before


def test_damaged_output_is_made_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = finished.parent / "out"
    before = final_bytes(output)
    (output / "packed/train.bin").write_bytes(before["packed/train.bin"][:-1])
    assert run_here(finished) == 0
    assert "Nothing to do" not in capsys.readouterr().out
    assert final_bytes(output) == before


def test_killed_at_random_moments_ends_with_the_same_bytes(finished: Path) -> None:
    """SIGKILL after a random number of new files, again and again; then one run to the end."""
    config = tiny_config(finished.parent, "killed", delay=0.01)
    # the engines' delay is an option like any other, so the uninterrupted run needs the same one
    whole = tiny_config(finished.parent, "whole", delay=0.01)
    assert run_here(whole) == 0
    output = finished.parent / "killed"
    rng = random.Random(20240501)
    kills = 0
    for _ in range(4):
        process = forked(config, config.with_suffix(".log"))
        goal = sum(1 for _ in output.rglob("*")) + rng.randrange(1, 45)
        while process.poll() is None and sum(1 for _ in output.rglob("*")) < goal:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    assert not (output / "stats.json").exists()
    assert run_here(config) == 0
    assert final_bytes(output) == final_bytes(finished.parent / "whole")
    assert counts(output) == counts(finished.parent / "whole")


def test_killed_while_publishing(finished: Path) -> None:
    """SIGKILL once the final files begin to appear."""
    for attempt in range(8):  # a busy machine may let the run end before it is killed
        config = tiny_config(finished.parent, f"publishing{attempt}")
        output = finished.parent / f"publishing{attempt}"
        process = forked(config, config.with_suffix(".log"))
        while process.poll() is None and not (output / "transfer_set.jsonl").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (output / "stats.json").exists():
            break
    assert not (output / "stats.json").exists()
    assert run_here(config) == 0
    assert final_bytes(output) == final_bytes(finished.parent / "out")


def test_two_runs_do_not_write_the_same_output(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(finished.parent / "out/.lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert run_here(finished) == 2
    assert "another run is writing here" in capsys.readouterr().err


def _line(config: Path, text: str) -> Path:
    path = config.parent / "bad.jsonl"
    path.write_text('{"instruction": "a?", "output": "b"}\n' + text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("instructions.path=absent.jsonl", "absent.jsonl: no such file"),
        ('line={"instruction": "x", ', "bad.jsonl, line 2: not valid JSON"),
        ('line={"instruction": "x", "output": ""}', "bad.jsonl, line 2: the answer is empty"),
        ("target_languages=[pro]", "unknown language 'pro' (ISO 639-3 expected); did you mean 'por'?"),
        ("target_languages=[eng]", "is the source language too"),
        ("translation.name=tinny", "translation.name: unknown translator backend 'tinny'; did you mean 'tiny'?"),
        ("quality.engine.options={tau: 1}", "quality.engine: quality estimator backend 'tiny' has no option 'tau'"),
        ("packing.seq_lenth=512", "did you mean 'packing.seq_length'?"),
        ("model=nowhere", "nowhere: no such folder; make the base model with tools/import_gguf.py"),
        ("plugins=[no_such_module]", "plugins: module 'no_such_module' cannot be imported"),
        ("synth.mode=bot", "synth.mode: unknown value 'bot'; did you mean 'both'?"),
        ("instructions.held_out=99", "instructions.held_out: 99 of 50 questions leaves none for training"),
        ("parallel.train_pairs=9999", "the parallel corpus for eng-por has 60 pairs"),
        ("quality.tau=2", "has no sample left"),
        ("seed", "override 'seed' is not of the form key=value"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    """In this process: a fresh interpreter for each case would take the time of the whole suite."""
    if override.startswith("line="):
        override = f"instructions.path={_line(finished, override.removeprefix('line='))}"
    code = run_here(finished, f"output_dir={tmp_path / 'o'}", override)
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(error) == 1
    assert message in error[0]
    assert not (tmp_path / "o/stats.json").exists()


def test_missing_configuration(tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "none.yaml")
    assert code == 2
    assert err.splitlines()[-1].endswith("none.yaml: no such configuration file")
