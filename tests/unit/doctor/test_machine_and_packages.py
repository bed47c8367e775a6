"""What the doctor reads from the machine: limits of containers, nvidia-smi, COMET's environment, versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrrl_nemo.common.fileio import sha256_file
from sdrrl_nemo.doctor import machine, packages
from tests.launch import ROOT

GIB = machine.GIB


def files(folder: Path, **text: str) -> Path:
    for name, content in text.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ({"cpu_dot_max": "150000 100000\n"}, 1.5),
        ({"cpu_dot_max": "max 100000\n"}, 0.0),
        ({"cpu__cpu_dot_cfs_quota_us": "400000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 4.0),
        ({"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 0.0),
        ({}, 0.0),
    ],
)
def test_cores_that_a_container_allows(content: dict[str, str], cores: float, tmp_path: Path) -> None:
    assert machine.cores_limit(files(tmp_path, **content)) == cores


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ({"memory_dot_max": f"{8 * GIB}\n"}, 8 * GIB),
        ({"memory_dot_max": "max\n"}, 0),
        ({"memory__memory_dot_limit_in_bytes": f"{GIB}\n"}, GIB),
        ({"memory__memory_dot_limit_in_bytes": "9223372036854771712\n"}, 0),
        ({}, 0),
    ],
)
def test_memory_that_a_container_allows(content: dict[str, str], limit: int, tmp_path: Path) -> None:
    assert machine.memory_limit(files(tmp_path, **content)) == limit


def test_the_machine_here_has_everything() -> None:
    m = machine.machine()
    assert m.cores >= 1 and m.usable_cores > 0
    assert GIB < m.usable_memory <= m.memory
    assert m.disk_free > 0 and m.open_files > 0 and m.system and m.libc


def test_the_smaller_of_what_is_there_and_what_is_allowed_counts() -> None:
    values = {"system": "", "libc": "", "architecture": "", "python": "", "disk_free": 0, "shared_memory": 0}
    m = machine.Machine(**values, open_files=0, cores=8, cores_limit=1.5, memory=4 * GIB, memory_limit=9 * GIB)
    assert m.usable_cores == 1.5 and m.usable_memory == 4 * GIB
    unknown = machine.Machine(**values, open_files=0, cores=8, cores_limit=0, memory=0, memory_limit=0)
    assert unknown.usable_cores == 8 and unknown.usable_memory == 0


def smi(folder: Path, body: str) -> list[str]:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return [str(path)]


def test_the_driver_and_its_gpus(tmp_path: Path) -> None:
    found = packages.driver(smi(tmp_path, "echo '580.65.06, NVIDIA A800-SXM4-80GB, 81920 MiB, 8.0'"))
    assert found == packages.Driver("580.65.06", ("NVIDIA A800-SXM4-80GB, 81920 MiB, sm_80",), "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9",
            "could not talk to the driver",
        ),
        ("exit 6", "exit code 6"),
        ("exit 0", "exit code 0"),
        ("sleep 30", "no answer (TimeoutExpired)"),
    ],
)
def test_a_driver_that_does_not_answer_is_a_sentence(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "TIMEOUT_S", 1)
    found = packages.driver(smi(tmp_path, body))
    assert found.version == "" and found.gpus == () and said in found.error
    assert packages.driver([str(tmp_path / "no-such")]).error == "nvidia-smi is not on this machine"


def test_the_state_of_comets_environment(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    assert packages.comet_environment(folder) == "absent"
    files(folder, bin__python="")
    assert packages.comet_environment(folder) == "unfinished"
    files(folder, _dot_installed="of another lock\n")
    assert packages.comet_environment(folder) == "outdated"
    files(folder, _dot_installed=sha256_file(ROOT / "requirements" / "comet.txt") + "\n")
    assert packages.comet_environment(folder) == "ready"


def test_packages_are_held_against_the_versions_served(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.13.0+cpu", "lightning": "2.6.0", "apex": "0.1"}
    monkeypatch.setattr(packages, "installed_version", installed.get)
    found = {p.name: p for p in packages.packages()}
    assert found["torch"].fits and found["torch"].version == "2.13.0+cpu"
    assert not found["lightning"].fits and found["lightning"].served == packages.SUPPORTED["lightning"].versions
    assert found["flash-attn"].version is None and found["flash-attn"].fits
    assert found["apex"] == packages.Package("apex", "0.1", "", True)
    assert set(packages.DEMO) <= set(found)


def test_settings_are_those_that_change_how_things_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in packages.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SOMEBODYS_TOKEN", "secret")
    assert packages.settings() == {"CUDA_VISIBLE_DEVICES": ""}
