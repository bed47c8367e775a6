"""docs/tour.md: what it names is there, and each change that it shows can be made and does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import ROOT

PAGE = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
CHANGES = dict(re.findall(r"^### … an? (\w+)\n\n```diff\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
WORKS = {
    "translator": (
        "from sdrrl_nemo.data.engines import base, translate\n"
        "assert base.TRANSLATORS.factory('argos').licence == 'MIT'\n"
    ),
    "filter": (
        "from sdrrl_nemo.data.filters import TextPair, make_filters\n"
        "judge = make_filters([('ending', {})])['ending']\n"
        "assert judge.reject(TextPair('It ends.', 'Acaba', 'eng', 'por')) == \"ends in 'a'\"\n"
        "assert judge.reject(TextPair('It ends.', 'Acaba.', 'eng', 'por')) is None\n"
    ),
    "benchmark": (
        "import json, pathlib\n"
        "from sdrrl_nemo.eval.config import BenchmarkConfig\n"
        "from sdrrl_nemo.eval.evaluation import plan\n"
        "row = {'Question': '2 + 2?', 'A': '3', 'B': '4', 'C': '5', 'D': '6', 'Answer': 'B', 'Subject': 'algebra'}\n"
        "pathlib.Path('mmmlu').mkdir()\n"
        "pathlib.Path('mmmlu/pt.jsonl').write_text(json.dumps(row) + '\\n')\n"
        "tasks, skipped = plan(BenchmarkConfig(data_dir='.', names=['mmmlu'], limits={'mmmlu': 5}))\n"
        "assert [t.name for t in tasks] == ['mmmlu.por'] and list(skipped) == ['mmmlu.eng']\n"
        "assert tasks[0].requests[0].context == '2 + 2?\\nA. 3\\nB. 4\\nC. 5\\nD. 6\\nAnswer:'\n"
        "assert tasks[0].score([[-2.0, -1.0, -3.0, -4.0]]).metrics == {'accuracy': 100.0}\n"
        "assert tasks[0].score([[-1.0, -2.0, -3.0, -4.0]]).metrics == {'accuracy': 0.0}\n"
    ),
    "language": (
        "from sdrrl_nemo.data.text.templates import translation_question\n"
        "assert 'from English to Swedish' in translation_question('Hello.', 'eng', 'swe')\n"
    ),
}
"""Change -> what is true once it is made."""


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:kernels|sdrrl_nemo|tests|tools)/[\w/.]*)`", PAGE))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_steps_of_section_3_2_are_the_files_of_the_folder() -> None:
    paragraph = next(p for p in PAGE.split("\n\n") if "section 3.2" in p)
    named = set(re.findall(r"`(\w+\.py)`", paragraph))
    folder = ROOT / "sdrrl_nemo" / "data" / "stages"
    assert named == {p.name for p in folder.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("what", WORKS)
def test_a_change_as_it_is_printed(what: str, tmp_path: Path) -> None:
    change = CHANGES[what]
    shutil.copytree(ROOT / "sdrrl_nemo", tmp_path / "sdrrl_nemo", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["git", "apply", "-"]
    done = subprocess.run(command, cwd=tmp_path, input=change, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-c", WORKS[what]]
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT / 'kernels'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_change_is_one_file_and_one_line() -> None:
    assert set(CHANGES) == set(WORKS)
    for what, change in CHANGES.items():
        files = re.split(r"^--- ", change, flags=re.MULTILINE)[1:]
        new = [f for f in files if f.startswith("/dev/null")]
        lines = [line for f in files if f not in new for line in f.splitlines()[2:] if line[:1] in "+-"]
        assert len(new) <= 1, what
        assert len(lines) <= 1, what
