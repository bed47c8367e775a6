"""The house stays one in which things are found: small folders, files of a screen or five, one meaning a name."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path, PurePosixPath

import yaml

from sdrrl_nemo.common.config import PlainLoader
from tests.launch import ROOT

SOURCE = ("kernels", "recipes", "sdrrl_nemo", "tools")
UNIT_TESTS = ROOT / "tests" / "unit"
MOST_FILES = 14
"""Python files of one folder, ``__init__.py`` apart. Twelve is the aim."""
MOST_LINES = 400
LONGER: dict[str, str] = {
    "sdrrl_nemo/report/data_card.py": "one card from top to bottom; its parts would not be read alone",
    "tests/distributed/invariance.py": "a study that is run by hand, with its report",
}
"""Files of more lines, each with the reason."""
SHARED: dict[str, str] = {
    "__init__.py": "",
    "base.py": "what the files of its folder have in common",
    "config.py": "the YAML sections of its room",
    "registry.py": "names and what they stand for: engines in common/, patches in compat/",
    # one thing seen from two rooms
    "alignment.py": "suite and scorer",
    "off_target.py": "suite and scorer",
    "belebele.py": "suite and scorer",
    "comet.py": "engine and scorer",
    "mkqa.py": "suite and scorer",
    "arena_hard.py": "suite and scorer",
    "language_confusion.py": "suite and scorer",
    "mgsm.py": "suite and scorer",
    "multiloko.py": "suite and scorer",
    "data_card.py": "the tool and what it calls",
    "languages.py": "the table and the tool that prints it",
    "plan.py": "the planner's tool, and the study's plan",
    "study.py": "the tool and the page",
}
"""Names that two files have, with what they have in common."""


def files(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *(patterns or ("*.py",))], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def source() -> list[str]:
    return [name for name in files() if name.split("/")[0] in SOURCE]


def test_a_folder_is_seen_at_once() -> None:
    folders: dict[str, int] = defaultdict(int)
    for name in source():
        folders[str(PurePosixPath(name).parent)] += not name.endswith("__init__.py")
    assert {folder: n for folder, n in folders.items() if n > MOST_FILES} == {}


def test_a_longer_file_has_a_reason() -> None:
    longer = {name for name in files() if len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MOST_LINES}
    assert longer == set(LONGER)


def test_no_yaml_file_has_a_key_twice() -> None:
    names = files("*.yaml", "*.yml")
    assert names
    for name in names:
        list(yaml.compose_all((ROOT / name).read_text(encoding="utf-8"), PlainLoader))


def test_a_name_means_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name in source():
        places[Path(name).name].append(name)
    assert {name for name, where in places.items() if len(where) > 1} == set(SHARED)


def test_tests_that_are_named_are_there() -> None:
    from tests import conftest

    named = [UNIT_TESTS / name for name in conftest.FAST] + [ROOT / "tests" / name for name in conftest.WIDE]
    for path, _, test in (str(entry).partition("::") for entry in named):
        assert Path(path).is_file(), path
        assert not test or f"def {test}(" in Path(path).read_text(encoding="utf-8"), test
