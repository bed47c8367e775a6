"""A try that raises, crashes, hangs or prints is one line of the report, and the tries after it are still made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sdrrl_nemo.doctor import trials
from sdrrl_nemo.doctor.probes import probe

MODULE = """
import ctypes, os, signal, sys, time
from sdrrl_nemo.doctor import trials

def fine(): return {"answer": 42}
def noisy(): print("a library says hello", flush=True); sys.stderr.write("x" * 300_000 + "\\n"); return {}
def raises(): raise ImportError("\\n  libcudnn.so.9: cannot open shared object file\\nmore")
def silent(): raise ValueError
def exits(): sys.stderr.write("Fatal: no way\\n"); sys.stderr.flush(); os._exit(3)
def leaves(): sys.exit("goodbye")
def crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(): time.sleep(300)

STEPS = {f.__name__: f for f in (fine, noisy, raises, silent, exits, leaves, crashes, hangs)}
def main(names): trials.main(names, STEPS)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "odd_steps.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "odd_steps"


def test_every_step_has_an_outcome_whatever_came_before(module: str) -> None:
    names = ["fine", "noisy", "raises", "exits", "silent", "crashes", "leaves"]
    found = probe(names, module)
    assert list(found) == names
    assert found["fine"].ok and found["fine"].facts == {"answer": 42} and found["noisy"].ok
    assert found["raises"].error == "ImportError: libcudnn.so.9: cannot open shared object file"
    assert found["silent"].error == "ValueError: no message"
    assert found["exits"].error == "the process ended with exit code 3: Fatal: no way"
    assert found["crashes"].error == "the process was ended by SIGSEGV"
    assert found["leaves"].error == "the process ended with exit code 1: goodbye"
    assert [name for name, o in found.items() if o.ok] == ["fine", "noisy"]


def test_a_step_that_hangs_is_ended_and_the_rest_goes_on(module: str) -> None:
    begun = time.monotonic()
    found = probe(["hangs", "fine"], module, timeout=8)
    assert found["hangs"].error == "no answer within 8 s" and found["fine"].ok
    assert time.monotonic() - begun < 60


def test_a_module_that_cannot_be_imported_fails_every_step(module: str) -> None:
    found = probe(["torch", "loss"], "no_such_module")
    assert not any(o.ok for o in found.values())
    assert all("No module named 'no_such_module'" in o.error for o in found.values())


def test_steps_on_this_machine() -> None:
    facts = trials.torch_facts()
    assert facts["version"].startswith("2.") and facts["gloo"]
    assert len(facts["gpus"]) > 0 or not facts["available"]
    assert trials.loss()["devices"][0] == "cpu"


def test_flash_attention_without_its_function_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="no flash_attn_varlen_func"):
        trials.flash_attention()
