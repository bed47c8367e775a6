"""The wheel: what is in it, that it runs far from the checkout, and that its loss needs torch and triton alone.

Built from a copy of the tracked folders and installed without network into a new environment, which sees the packages
of the one that runs the tests through a path file; editable installs are not seen that way, so the code is the wheel's.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sdrrl_kernels
from sdrrl_nemo import __version__
from sdrrl_nemo.cli.main import COMMANDS
from tests.launch import ROOT

SOURCES = ("kernels", "recipes", "requirements", "sdrrl_nemo", "tools")
FILES = ("LICENSE", "README.md", "pyproject.toml", "setup.py")
DATA = (".html", ".j2", ".css", ".csv", ".yaml", ".typed")
ALONE = """
import doctest, importlib.util, sys
sys.path[:0] = sys.argv[1:]
others = ("numpy", "nemo", "megatron", "lightning", "transformers", "omegaconf", "yaml", "tqdm", "sdrrl_nemo")
assert not [name for name in others if importlib.util.find_spec(name)]

import torch
import sdrrl_kernels
from sdrrl_kernels import cross_entropy, linear_cross_entropy
import sdrrl_kernels.cross_entropy_triton  # what runs on a GPU; here it is only imported

assert sdrrl_kernels.__file__.startswith(sys.argv[2])
tried, failed = doctest.testmod(sdrrl_kernels)[::-1]
assert tried > 5 and not failed
hidden = torch.randn(7, 8, requires_grad=True)
weight = torch.randn(11, 8, requires_grad=True)
labels, ones, subsets = torch.arange(7), torch.full((7,), 1 / 7), torch.zeros(7, dtype=torch.int64)
want = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels)
gradients = torch.autograd.grad(want, (hidden, weight))
for out in (
    cross_entropy(hidden @ weight.t(), labels, ones, subsets, 1),
    linear_cross_entropy(hidden, weight, labels, ones, subsets, 1),
):
    torch.testing.assert_close(out.loss, want)
    torch.testing.assert_close(torch.autograd.grad(out.loss, (hidden, weight)), gradients)
print("alone:", ", ".join(sorted({n.split(".")[0] for n in sys.modules} & {"torch", "triton", "sdrrl_kernels"})))
"""


def run(command: Sequence[str | Path], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """In a folder that is not the checkout, without PYTHONPATH."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TRITON_INTERPRET", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def pip(*arguments: str | Path, cwd: Path) -> None:
    done = run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``pip wheel .`` builds it, away from what earlier builds left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", folder, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of a new environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    done = run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    python = folder / "env" / "bin" / "python"
    pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=folder)
    [site] = (folder / "env" / "lib").glob("python3*/site-packages")
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "dependencies_of_the_tests.pth").write_text("\n".join(paths) + "\n")
    return python.parent


def test_it_claims_two_names_and_carries_no_tests(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert tops == {"sdrrl_nemo", "sdrrl_kernels", f"sdrrl_nemo-{__version__}.dist-info"}
    assert not [name for name in names if re.search(r"(^|/)tests?(/|_)|conftest|__pycache__", name)]


def test_every_module_and_data_file_is_in_it(names: set[str]) -> None:
    inside = {"sdrrl_nemo": "sdrrl_nemo", "kernels/sdrrl_kernels": "sdrrl_kernels"}
    inside |= {folder: f"sdrrl_nemo/{folder}" for folder in ("tools", "recipes")}
    wanted = {
        f"{target}/{path.relative_to(ROOT / folder)}"
        for folder, target in inside.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", *DATA) and "__pycache__" not in path.parts
    }
    assert len(wanted) > 150 and wanted <= names
    assert {"sdrrl_nemo/py.typed", "sdrrl_kernels/py.typed", "sdrrl_nemo/requirements/comet.txt"} <= names
    locks = {name for name in names if name.startswith("sdrrl_nemo/requirements/") and name.endswith(".txt")}
    assert all("/comet" in name for name in locks)  # the others are for clones


def test_the_code_that_runs_is_the_wheels(environment: Path, tmp_path: Path) -> None:
    modules = ["sdrrl_nemo", "sdrrl_nemo.tools.plan", "sdrrl_nemo.recipes.sdrrl_pretrain", "sdrrl_kernels"]
    code = "import sys; from importlib.util import find_spec; print(*(find_spec(m).origin for m in sys.argv[1:]))"
    done = run([environment / "python", "-c", code, *modules], tmp_path)
    assert done.returncode == 0, done.stderr
    origins = done.stdout.split()
    assert len(origins) == 4 and all(o.startswith(f"{environment.parent}/") for o in origins), origins


def test_the_command_and_its_help(environment: Path, tmp_path: Path) -> None:
    sdrrl = environment / "sdrrl"
    done = run([sdrrl, "--help"], tmp_path)
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in COMMANDS)
    assert run([sdrrl, "--version"], tmp_path).stdout == f"sdrrl {__version__}\n"
    for name in ("preprocess", "train", "comet-env"):
        done = run([sdrrl, name, "--help"], tmp_path)
        assert done.returncode == 0 and f"usage: sdrrl {name} " in done.stdout, done.stderr


def test_commands_that_need_no_checkout_run(environment: Path, tmp_path: Path) -> None:
    sdrrl = environment / "sdrrl"
    done = run([sdrrl, "plan", "--published"], tmp_path)
    assert done.returncode == 0 and "held out: mean error" in done.stdout, done.stderr
    (tmp_path / "run.yaml").write_text("run_dir: out\nmodel: {hf_path: none}\ndata: {path: none}\n")
    for arguments, error in (
        (["train", "--dry-run", "--config", "absent.yaml"], "absent.yaml: no such configuration file"),
        (["train", "--config", "run.yaml", "trainer.tpp=2"], "unknown key 'trainer.tpp'"),
        (["preprocess", "--config", "run.yaml"], "unknown key 'run_dir'"),
        (["launch", "--config", "run.yaml"], "run it in the folder of a clone"),
    ):
        done = run([sdrrl, *arguments], tmp_path)
        assert done.returncode == 2 and error in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_doctor_finds_everything_that_a_run_imports(environment: Path, tmp_path: Path) -> None:
    done = run([environment / "sdrrl", "doctor", "--json"], tmp_path)
    assert done.stderr == "" and done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["project"] == {"version": __version__, "commit": "unknown", "installed_as": "package"}
    assert all(report["tries"][name]["ok"] for name in ("training", "export", "preprocessing", "evaluation", "planner"))
    for folder in (ROOT, environment.parent, tmp_path, Path.home()):
        assert f"{folder}/" not in done.stdout


def closure(names: Sequence[str]) -> Iterator[metadata.Distribution]:
    """Distributions and what they require here, extras aside."""
    todo, seen = list(names), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        yield found
        requirements = map(Requirement, found.requires or [])
        todo += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def test_the_loss_needs_torch_and_triton_alone(wheel: Path, tmp_path: Path) -> None:
    alone, unpacked = tmp_path / "site", tmp_path / "wheel"
    alone.mkdir()
    for found in closure(["torch", "triton"]):
        for top in {Path(str(file)).parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (alone / top).exists():
                (alone / top).symlink_to(Path(str(found.locate_file(top))))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked, [n for n in archive.namelist() if n.startswith("sdrrl_kernels/")])
    bare = [sys.executable, "-I", "-S", "-c"]
    done = run([*bare, ALONE, alone, unpacked], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "alone: sdrrl_kernels, torch, triton"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = "import sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; from sdrrl_nemo.cli.main import main; main()"
    for command, package in (("preprocess", "yaml"), ("train", "yaml"), ("doctor", "packaging"), ("plan", "yaml")):
        done = run(
            [*bare, code, alone, unpacked, command, "--config", "x"][: -2 if command == "doctor" else None], tmp_path
        )
        assert f"error: sdrrl {command} needs the package '{package}', which is not installed" in done.stderr
        assert "Traceback" not in done.stderr and done.stdout == ""


def test_the_example_in_the_kernels_docstring() -> None:
    failed, tried = doctest.testmod(sdrrl_kernels)
    assert tried > 5 and not failed
