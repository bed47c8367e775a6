"""tools/gpu_check.py without a GPU: what its parts say is recorded, in order, within the time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.cost.gpus import gpu
from tests.launch import environment
from tools.gpu import parts, plain_loop, run_parts, summary_table, training_runs
from tools.gpu.child import why
from tools.gpu.first_losses import BOUNDS, compared, reference
from tools.gpu.layer_kinds import KINDS, kind, why_not
from tools.gpu.made_up import inputs, tensors
from tools.gpu.parts import Part
from tools.gpu.shapes import SHAPES, SMALL, shape
from tools.gpu_check import chosen, main


def part(name: str, code: str, **more: Any) -> Part:
    """A part that runs ``code`` and counts the characters that it printed."""
    return Part(
        name, more.pop("needs", 1), [sys.executable, "-c", code], lambda text: {"characters": len(text)}, **more
    )


def course(folder: Path, of: Sequence[Part], seconds: float = 60, ahead: bool = False) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    about = {"name": "nothing", "small": True}
    code = run_parts.Course(of, seconds, folder / "logs", folder / "out.json", about, ahead=ahead).run()
    return code, json.loads((folder / "out.json").read_text())


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {p["name"]: p for p in report["parts"]}


def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    of = [
        part("good", "print('abc')"),
        part("bad", "print('much'); raise SystemExit('error: the card is on fire')"),
        part("needs bad", "print()", after=("bad",)),
        part("absent", "print()", skip="it is not installed"),
        part("long", "print()", needs=1000),
        part("last", "print('z')"),
    ]
    code, report = course(tmp_path, of)
    found = by_name(report)
    assert code == 1
    assert [p["name"] for p in report["parts"]] == [p.name for p in of]
    assert found["good"]["characters"] == 4 and found["last"]["status"] == "ok"
    assert found["good"]["command"] == "python -c 'print('\"'\"'abc'\"'\"')'"
    assert found["bad"]["status"] == "failed" and "exit code 1: error: the card is on fire" in found["bad"]["sentence"]
    assert found["needs bad"]["sentence"] == "it needs the part 'bad', which did not end well"
    assert found["absent"] == {"name": "absent", "status": "skipped", "sentence": "it is not installed"}
    assert found["long"]["status"] == "skipped" and "it needs about 1000" in found["long"]["sentence"]
    assert {"git_commit", "versions", "date", "seconds", "command"} <= report.keys()
    assert any("the card is on fire" in line for line in summary_table.lines(report))


def test_all_well_is_exit_code_0_and_a_result_that_complains_is_1(tmp_path: Path) -> None:
    assert course(tmp_path, [part("good", "print()")])[0] == 0
    wrong = Part("wrong", 1, [sys.executable, "-c", ""], lambda _: {"loss": 3.0, "sentence": "a loss is off"})
    code, report = course(tmp_path, [wrong])
    assert code == 1 and by_name(report)["wrong"]["sentence"] == "a loss is off"
    assert by_name(report)["wrong"]["loss"] == 3.0
    torn = Part("torn", 1, [sys.executable, "-c", ""], lambda _: {"x": json.loads("{")})
    assert by_name(course(tmp_path, [torn])[1])["torn"]["sentence"].startswith("JSONDecodeError: ")


def test_a_part_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_parts, "LONGEST", 1.0)
    of = [part("hangs", "import time; time.sleep(100)"), part("last", "print()")]
    found = by_name(course(tmp_path, of)[1])
    assert found["hangs"]["sentence"].startswith("took longer than 1 s; its output is in ")
    assert found["hangs"]["seconds"] < 10 and found["last"]["status"] == "ok"


def test_a_process_started_early_waits_for_its_turn(tmp_path: Path) -> None:
    """It is there while the part before it works, and begins when that has ended."""
    gate, begun = tmp_path / "go", tmp_path / "started"
    first = f"import pathlib, time\nwhile not pathlib.Path({str(begun)!r}).exists(): time.sleep(0.01)\nprint('first')"
    second = (
        f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\nprint('second')"
    )
    of = [part("first", first), part("second", second, gate=gate)]
    code, report = course(tmp_path, of, ahead=True)
    assert code == 0 and [p["status"] for p in report["parts"]] == ["ok", "ok"]


def test_the_sentence_of_a_log_is_its_last_error() -> None:
    torchrun = "x\nerror: no room to write; free some\nE1128 torch.distributed ... ChildFailedError:\n====\n"
    assert why(torchrun) == "error: no room to write; free some"
    assert why("one\ntwo\n\n") == "two" and why("") == "it said nothing"


def test_a_report_of_pytest_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "x.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no&#10;good"/></testcase>'
        '<testcase name="c"><skipped message="needs a GPU"/></testcase></testsuite></testsuites>'
    )
    found = parts._of_junit(report)
    assert (found["passed"], found["failed"], found["reasons"]) == (1, 1, {"needs a GPU": 1})
    assert found["sentence"] == "1 tests fail: b: no good"


def test_losses_are_compared_step_by_step() -> None:
    row = {"losses": [10.0, 9.0], "grad_norms": [2.0, 1.0]}
    near = {"losses": [10.0 + 5 * BOUNDS["fp32"].first_loss, 9.0], "grad_norms": [2.0, 7.0]}
    assert compared(near, row, "fp32")["sentence"] == ""
    far = {"losses": [10.0, 9.0 + 20 * BOUNDS["fp32"].loss], "grad_norms": [2.0]}
    assert compared(far, row, "fp32")["sentence"] == "not the CPU's in fp32: loss 0.022% off, bound 0.010%"
    assert compared(far, row, "bf16")["sentence"] == ""
    first = compared({**near, "losses": [10.02, 9.0]}, row, "bf16")["sentence"]
    assert "first loss 0.200% off" in first and "; loss" not in first
    assert "first gradient norm 25.000% off" in compared({**near, "grad_norms": [2.5]}, row, "bf16")["sentence"]
    assert compared({"losses": [None], "grad_norms": [1.0]}, row, "bf16")["sentence"]
    assert compared({"losses": [], "grad_norms": []}, row, "bf16")["sentence"]


@pytest.mark.parametrize("name", ["smol", "slice", "tiny"])
def test_drawn_tensors_are_all_of_the_model(name: str) -> None:
    of = shape(name)
    count = sum(math.prod(size) for _, size in tensors(of.config))
    assert count == training_runs.model_shape(of).parameters()
    assert name != "smol" or count == 134_515_008  # SmolLM2-135M


def test_every_shape_is_predicted(tmp_path: Path) -> None:
    for of in (*SHAPES, *SMALL):
        content = training_runs.settings(of, tmp_path, tmp_path, tmp_path / "run")
        config = training_runs.write_settings(tmp_path / "config.yaml", content)
        found = training_runs.predicted(of, config, gpu("h100-80g"), fused=True)
        assert 0 < found["mfu"] < 1 and found["memory_gb"] < 80


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny products on several threads wait for each other, for long where other processes are at work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_plain_loop_has_the_committed_losses_and_a_wrong_mask_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = shape("smol-small")
    model, data = inputs(of, tmp_path)
    plan = plain_loop.Plan(of.name, str(model), str(data), "cpu", "fp32", of.micro_batch_size, of.reference_steps)
    row = reference(of, tmp_path)
    assert compared(plain_loop.loop(plan), row, "fp32")["sentence"] == ""
    right = plain_loop.micro_batch

    def one_sample(model: Any, batch: dict[str, Any], plan: plain_loop.Plan) -> Any:
        """Positions that go on over the whole row: every sample attends to those before it."""
        positions = torch.arange(batch["tokens"].shape[1])[None]
        return right(model, {**batch, "position_ids": positions}, plan)

    monkeypatch.setattr(plain_loop, "micro_batch", one_sample)
    assert "first gradient norm" in compared(plain_loop.loop(plan), row, "bf16")["sentence"]
    write_json(tmp_path / "smol-small.made_up.json", {"weights": "others", "data": row["data"]})
    with pytest.raises(SdrrlError, match=r"made with other weights; make it anew: tools/gpu_check\.py"):
        reference(of, tmp_path)


def test_on_a_gpu_the_best_layers_come_first_and_what_does_not_fit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "why_not", lambda kind: "it is absent" if kind.name == "te" else "")
    place = parts.Place(tmp_path, small=False, on_gpu=True, card=gpu("h100-80g"), memory_gb=80.0)
    of = {p.name: p for p in parts.all_parts(place)}
    assert list(of) == [
        *("facts", "inputs", "kernel-tests", "training-tests", "smol-flash", "slice-flash", "smol-plain"),
        *("slice-plain", "kernel-times", "smol-te", "slice-te", "smol-varlen", "slice-varlen", "smol-local"),
        "slice-local",
    ]
    assert [name for name, p in of.items() if p.skip] == ["smol-te", "slice-te"]
    assert "loadgroup" in of["kernel-tests"].command and not of["kernel-tests"].environment
    assert json.loads((tmp_path / "runs" / "smol-plain.json").read_text())["device"] == "cuda"
    small = parts.Place(tmp_path, small=False, on_gpu=True, card=None, memory_gb=24.0)
    skipped = {p.name: p.skip for p in parts.all_parts(small) if p.skip}
    assert skipped["slice-flash"] == "it needs a GPU with 26 GB, this one has 24" and "smol-flash" not in skipped


def test_layers_that_are_better_are_hidden_from_one_process() -> None:
    code = (
        "from importlib.util import find_spec\n"
        "from tools.gpu.layer_kinds import kind, take; take(kind('varlen'))\n"
        "assert find_spec('flash_attn') is None and find_spec('transformer_engine') is None\n"
        "import torch.nn.attention.varlen; take(kind('varlen'))\n"
        "try: take(kind('local'))\n"
        "except Exception as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert "torch.nn.attention.varlen was imported before it could be hidden" in done.stdout
    assert [k.name for k in KINDS] == ["te", "flash", "varlen", "local"] and why_not(kind("local")) == ""
    with pytest.raises(SdrrlError, match="layers 'flush' are unknown; did you mean 'flash'"):
        kind("flush")


def test_parts_are_chosen_by_name_with_what_they_need() -> None:
    of = [part("facts", ""), part("inputs", ""), part("train", "", after=("inputs",))]
    assert [p.name for p in chosen(of, ["train"])] == ["inputs", "train"]
    assert chosen(of, []) == of
    with pytest.raises(SdrrlError, match="--parts: 'trian' is unknown; did you mean 'train'"):
        chosen(of, ["trian"])


def test_without_a_gpu_it_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SdrrlError, match=r"torch sees no GPU here .* --small runs the check's code on the CPU"):
        main([])
