"""Which Python COMET's environment is made with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from tools import make_comet_env


def interpreter(folder: Path, name: str, version: str) -> Path:
    """A program that says it is this version; without one it does not start, as a shim of pyenv that is off."""
    path = folder / name
    body = f"echo {version}" if version else f"echo 'pyenv: {name}: command not found' >&2; exit 127"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of this folder alone, and a Python of our own that COMET has no wheels for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(interpreter(tmp_path, "ours", "3.13")))
    return tmp_path


def test_one_that_does_not_start_is_passed_over(on_the_path: Path) -> None:
    interpreter(on_the_path, "python3.12", "")
    found = interpreter(on_the_path, "python3.11", "3.11")
    assert make_comet_env.find_python(None) == str(found)


def test_ours_comes_first(on_the_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(on_the_path, "python3.12", "3.12")
    ours = interpreter(on_the_path, "mine", "3.11")
    monkeypatch.setattr(sys, "executable", str(ours))
    assert make_comet_env.find_python(None) == str(ours)


def test_none_is_said(on_the_path: Path) -> None:
    interpreter(on_the_path, "python3.12", "")
    with pytest.raises(SdrrlError, match=r"need Python 3\.12 or 3\.11 and none was found; name one: --python"):
        make_comet_env.find_python(None)


def test_a_named_one_must_start_and_fit(on_the_path: Path) -> None:
    broken, old = interpreter(on_the_path, "broken", ""), interpreter(on_the_path, "old", "3.10")
    with pytest.raises(SdrrlError, match=r"starting \S+broken failed: pyenv: broken: command not found"):
        make_comet_env.find_python(str(broken))
    with pytest.raises(SdrrlError, match=r"--python \S+old is Python 3\.10; COMET's packages need one of 3\.12, 3\.11"):
        make_comet_env.find_python(str(old))
    with pytest.raises(SdrrlError, match="none was found"):
        make_comet_env.find_python(str(on_the_path / "nowhere"))
