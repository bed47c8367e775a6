"""The command sdrrl: every tool is reachable under its name, quickly, and its exit code is the command's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdrrl_nemo import __version__
from sdrrl_nemo.cli.main import COMMANDS, dispatch, load
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.provenance import provenance
from tests.launch import ROOT, environment, is_script

OF_THE_CHECKOUT = {  # measurements of this project and upkeep of its files: no use outside a clone
    "tools/bench/data_throughput.py",
    "tools/bench/evaluation_speed.py",
    "tools/bench/generation_speed.py",
    "tools/bench/loss_kernels.py",
    "tools/bench/kernel_table.py",
    "tools/bench/kernels/bench_kernels.py",
    "tools/bench/kernels/tune_plans.py",
    "tools/bench/training/loader_speed.py",
    "tools/bench/training_speed.py",
    "tools/bench/chain_cost.py",
    "tools/bench/compile_kernels.py",
    "tools/bench/data_cost.py",
    "tools/bench/roofline.py",
    "tools/bench/code_size.py",
    "tools/docs/one_row.py",
    "tools/docs/demo_results.py",
    "tools/docs/plan_table.py",
    "tools/docs/readme_table.py",
    "tools/docs/study_table.py",
    "tools/bench/stand_ins.py",
    "tools/gpu_check.py",
}


def sdrrl(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(("-c", code) if code else ("-m", "sdrrl_nemo")), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)


def test_every_tool_is_a_subcommand_or_belongs_to_the_checkout_alone() -> None:
    folders = ("tools", "recipes")
    found = [p for folder in folders for p in (ROOT / folder).rglob("[!_]*.py") if is_script(p)]
    scripts = {str(p.relative_to(ROOT)) for p in found}
    assert {c.script for c in COMMANDS.values()} == scripts - OF_THE_CHECKOUT


def test_help_lists_every_subcommand_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("-h", "--help", "help"):
        assert dispatch([word]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert sum(line.split(maxsplit=1) == [name, command.line] for line in lines) == 3
    assert max(map(len, lines)) <= 100


def test_without_a_subcommand_the_help_is_on_stderr_and_the_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: sdrrl SUBCOMMAND")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sdrrl_nemo.cli.main import main; sys.argv = ['sdrrl', '--help']; main(); "
        "print(sorted({'torch', 'numpy', 'omegaconf', 'yaml', 'tqdm', 'transformers'} & set(sys.modules)))"
    )
    done = sdrrl(code=code)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand_is_the_tools_own_under_the_commands_name(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sdrrl", name, "--help"])
    with pytest.raises(SystemExit) as e:
        dispatch([name, "--help"])
    assert not e.value.code and f"usage: sdrrl {name} " in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["--version"]) == dispatch(["-V"]) == 0
    assert capsys.readouterr().out == f"sdrrl {__version__}\n" * 2


def test_an_unknown_subcommand_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dispatch, ["preproces", "--config", "x"]) == 2
    assert capsys.readouterr().err == "error: 'preproces' is no subcommand of sdrrl; did you mean 'preprocess'?\n"


def test_arguments_reach_the_tool_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    done = sdrrl("data-card", "--data", str(tmp_path / "no such"), "--samples", "3")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "no such" in done.stderr
    assert "Traceback" not in done.stderr
    assert sdrrl("plan", "--published").returncode == 0
    usage = sdrrl("plan", "--no-such-option")
    assert usage.returncode == 2 and "sdrrl plan: error: unrecognized arguments: --no-such-option" in usage.stderr


def test_the_tool_is_the_one_beside_this_code(tmp_path: Path) -> None:
    assert Path(str(load("tools/plan.py").__file__)) == ROOT / "tools" / "plan.py"
    assert load("tools/plan.py").__name__ == "sdrrl_nemo.tools.plan"


def test_provenance_keeps_the_command_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sdrrl train", "--config", "a b.yaml"])
    assert provenance()["command"] == ["sdrrl", "train", "--config", "a b.yaml"]
