"""tools/x.py and recipes/x.py start from any folder and shell, with the right Python, or say what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import ROOT, is_script

BARE = {"PATH": "/usr/bin:/bin"}
FOLDERS = ("tools", "recipes")
FOUND = [p for folder in FOLDERS for p in (ROOT / folder).rglob("[!_]*.py")]
SCRIPTS = sorted(p for p in FOUND if is_script(p))


def interpreter(path: Path, name: str, complete: bool = True) -> None:
    """A stand-in for Python: says who it is and what it was given; ``-c`` is the question for the packages."""
    path.parent.mkdir(parents=True)
    path.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && exit {int(not complete)}\nprintf \'%s|\' {name} "$PYTHONPATH" "$@"\n'
    )
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The launcher and two scripts, in a folder with a space in its name; no Python has the packages."""
    root = tmp_path / "che ck out"
    for script in ("tools/plan.py", "recipes/sdrrl_pretrain.py", "tools/python"):
        (root / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, root / script)
    interpreter(tmp_path / "path" / "python3", "python3", complete=False)
    return root


def start(script: Path | str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{cwd.parent if cwd.name == 'che ck out' else cwd}/path:{BARE['PATH']}"
    return subprocess.run(
        [str(script), *arguments], cwd=cwd, env={"PATH": path, **env}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_starts_through_the_launcher(script: Path) -> None:
    first = script.read_text(encoding="utf-8").splitlines()[0]
    up = "/.." * (len(script.relative_to(ROOT).parts) - 2)
    launcher = "/../tools/python" if script.parent.name == "recipes" else f"{up}/python"
    assert first == f"""#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")"){launcher}" "$0" "$@"'"""
    assert len(first) < 127  # what older kernels read of it
    assert os.access(script, os.X_OK)


def test_the_active_environment_comes_first_then_the_checkouts_then_python3(checkout: Path, tmp_path: Path) -> None:
    tool = checkout / "tools" / "plan.py"
    paths = f"{checkout}:{checkout}/kernels"
    interpreter(tmp_path / "other" / "path" / "python3", "python3")
    done = start(tool, "a", cwd=tmp_path / "other")
    assert done.stdout == f"python3|{paths}|{tool}|a|"
    interpreter(checkout / ".venv" / "bin" / "python", "venv")
    assert start(tool, cwd=tmp_path / "other").stdout.startswith("venv|")
    interpreter(tmp_path / "active" / "bin" / "python", "active")
    assert start(tool, cwd=tmp_path, VIRTUAL_ENV=str(tmp_path / "active")).stdout.startswith("active|")


def test_an_active_environment_without_the_packages_is_passed_over(checkout: Path, tmp_path: Path) -> None:
    interpreter(tmp_path / "active" / "bin" / "python", "active", complete=False)
    interpreter(checkout / ".venv" / "bin" / "python", "venv")
    tool = checkout / "tools" / "plan.py"
    assert start(tool, cwd=tmp_path, VIRTUAL_ENV=str(tmp_path / "active")).stdout.startswith("venv|")
    assert start(tool, cwd=tmp_path, VIRTUAL_ENV=str(tmp_path / "gone")).stdout.startswith("venv|")


def test_arguments_relative_calls_and_links_from_elsewhere(checkout: Path, tmp_path: Path) -> None:
    interpreter(checkout / ".venv" / "bin" / "python", "venv")
    paths = f"{checkout}:{checkout}/kernels"
    done = start("tools/plan.py", "a b", "*", "", "$HOME", cwd=checkout)
    assert done.stdout == f"venv|{paths}|tools/plan.py|a b|*||$HOME|"
    assert start("./recipes/sdrrl_pretrain.py", cwd=checkout).stdout == f"venv|{paths}|./recipes/sdrrl_pretrain.py|"
    link = tmp_path / "my plan"
    link.symlink_to(checkout / "tools" / "plan.py")
    assert start(link, cwd=tmp_path).stdout == f"venv|{paths}|{link}|"
    assert start(link, cwd=tmp_path, PYTHONPATH="/mine").stdout == f"venv|{paths}:/mine|{link}|"


def test_without_an_environment_one_sentence_says_what_to_do(checkout: Path, tmp_path: Path) -> None:
    for script in ("tools/plan.py", "recipes/sdrrl_pretrain.py"):
        done = start(checkout / script, cwd=tmp_path)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr == "error: the environment is not installed; run: make install\n"


def test_the_question_for_the_packages_is_one_that_this_python_answers_yes() -> None:
    code = (ROOT / "tools" / "python").read_text().split("-c '")[1].split("'")[0]
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    without = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False)
    assert without.returncode != 0


def test_a_real_tool_from_another_folder_with_an_empty_environment(tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    env = {**BARE, "VIRTUAL_ENV": str(tmp_path / "environment")}
    done = subprocess.run(
        [ROOT / "tools" / "plan.py", "--published"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "held out: mean error" in done.stdout, done.stderr
