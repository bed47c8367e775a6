"""What `make install` does, step by step, and the locks that it installs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder:
    """Stands for the processes that install.py starts; ``installed`` is what they have put there."""

    def __init__(
        self, module: Any, monkeypatch: pytest.MonkeyPatch, *, torch_brings: str = "", fails: str = ""
    ) -> None:
        self.calls: list[list[str]] = []
        self.asked: list[set[str]] = []
        self.installed: set[str] = set()
        self.brings, self.fails = torch_brings, fails
        monkeypatch.setattr(module.subprocess, "run", self.run)
        monkeypatch.setattr(module, "present", lambda name: name in self.installed)

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(command))
        if command[1] == "-c":
            failed = self.fails == "import"
            return subprocess.CompletedProcess(
                command, int(failed), "torch 2.13.0: CPU build\n", "ImportError: libcudnn.so.9"
            )
        if "-r" in command:
            lines = Path(command[list(command).index("-r") + 1]).read_text().splitlines()
            self.asked.append({line.split("==")[0] for line in lines if line and line[0] != "#"})
        if any(word.startswith("torch==") for word in command):
            self.installed |= {"torch", *filter(None, [self.brings])}
        return subprocess.CompletedProcess(command, int(bool(self.fails) and self.fails in command), "", "")


def test_torch_comes_first_and_with_its_own_dependencies(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    module = _module()
    seen = Recorder(module, monkeypatch)
    module.install(module.lock_files((3, 11), True), set(), True, ["--pre"])
    _, torch, check, rest, project = seen.calls
    assert torch[-4:-1] == ["torch==2.13.0", "--constraint", str(ROOT / "requirements" / "lock-3.11.txt")]
    assert "--no-deps" not in torch and check[1] == "-c"
    assert "--no-deps" in rest and "--no-deps" in project and project[-2] == str(ROOT)
    assert all(call[-1] == "--pre" for call in seen.calls if call is not check)
    assert "torch" not in seen.asked[-1] and {"numpy", "transformers", "pytest", "triton"} <= seen.asked[-1]
    assert capsys.readouterr().out == "torch 2.13.0: CPU build\n"


def test_a_cuda_build_keeps_the_triton_that_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    seen = Recorder(module, monkeypatch, torch_brings="triton")
    module.install(module.lock_files((3, 12), True), set(), False, [])
    assert "triton" not in seen.asked[-1] and "numpy" in seen.asked[-1]


def test_an_image_keeps_its_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    seen = Recorder(module, monkeypatch)
    seen.installed |= {"torch", "numpy"}
    module.install(module.lock_files((3, 12), False), {"torch", "numpy"}, False, [])
    assert not any(word.startswith("torch==") for call in seen.calls for word in call)
    assert not {"torch", "numpy", "pytest"} & seen.asked[-1] and "transformers" in seen.asked[-1]
    with pytest.raises(module.Failed, match="apex is not installed here"):
        module.install(module.lock_files((3, 12), False), {"apex"}, False, [])


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("import", r"cannot be imported \(ImportError: libcudnn.so.9\)"),
        ("torch==2.13.0", "could not install torch==2.13.0"),
    ],
)
def test_a_failure_is_one_sentence(fails: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    Recorder(module, monkeypatch, fails=fails)
    with pytest.raises(module.Failed, match=message):
        module.install(module.lock_files((3, 11), False), set(), False, [])


def test_a_python_without_lock() -> None:
    module = _module()
    with pytest.raises(module.Failed, match=r"no lock for Python 3.10; use one of 3.11, 3.12, 3.13"):
        module.lock_files((3, 10), True)


def _markers(version: str) -> dict[str, str]:
    return {"python_version": version, "python_full_version": version + ".0", "sys_platform": sys.platform}


@pytest.mark.parametrize("version", PYTHONS)
def test_locks_hold_what_the_project_asks_for(version: str) -> None:
    """Each direct requirement is locked, within the range that pyproject.toml names."""
    module = _module()
    major, minor = map(int, version.split("."))
    locked = module.packages([ROOT / "requirements" / "build.txt", *module.lock_files((major, minor), True)])
    pins = {str(canonicalize_name(name)): line.split("==")[1] for name, line in locked.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = ("demo", "data", "translate", "lid", "eval", "scale", "dev")
    asked = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, asked):
        if requirement.marker is None or requirement.marker.evaluate(_markers(version)):
            name = str(canonicalize_name(requirement.name))
            assert requirement.specifier.contains(pins[name]), f"{requirement} is locked as {pins.get(name)}"


def test_makefile_names_every_python_that_has_a_lock() -> None:
    found = sorted(f.stem.removeprefix("lock-dev-") for f in (ROOT / "requirements").glob("lock-dev-*.txt"))
    assert found == list(PYTHONS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"python{version}" in makefile for version in PYTHONS)
