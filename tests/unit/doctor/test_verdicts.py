"""From facts to words: each machine that users have, what is said of it, what to do, and the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sdrrl_nemo.compat.versions import PURPOSES, SUPPORTED
from sdrrl_nemo.doctor import text
from sdrrl_nemo.doctor.machine import GIB, Machine
from sdrrl_nemo.doctor.packages import DEMO, SEGMENTATION, Driver, Package
from sdrrl_nemo.doctor.probes import Outcome
from sdrrl_nemo.doctor.verdicts import LIMITED, NO, OK, Facts, Verdict, exit_code, verdicts

STEPS = ("torch", "loss", "training", "export", "preprocessing", "evaluation", "planner")
GPU = {"name": "NVIDIA A800-SXM4-80GB", "memory": 80 * GIB, "capability": "8.0"}
SMI = Driver("580.65", ("NVIDIA A800-SXM4-80GB, 81920 MiB, sm_80",), "")


def torch(cuda: str = "", count: int = 0, **more: Any) -> Outcome:
    facts = {"version": f"2.13.0+{cuda or 'cpu'}", "cuda": cuda, "gloo": True, "available": count > 0}
    return Outcome(True, facts={**facts, "gpus": [GPU] * count, **more})


def package(name: str, version: str | None, fits: bool = True) -> Package:
    served = SUPPORTED[name].versions if name in SUPPORTED else ""
    return Package(name, version, served, fits)


def good(**changes: Any) -> Facts:
    """A laptop on which the demo runs; ``tries`` and ``packages`` in ``changes`` are added to its own."""
    tries: dict[str, Outcome] = {name: Outcome(True) for name in STEPS}
    tries |= {"torch": torch(), "loss": Outcome(True, facts={"devices": ["cpu"]})}
    tries |= dict.fromkeys(("transformer-engine", "flash-attn", "triton", "apex"), Outcome(False, "is not installed"))
    tries |= changes.pop("tries", {})
    added = changes.pop("packages", [])
    names = {*(p.name for p in added)}
    base = [package(n, "1") for n in (*DEMO, *SEGMENTATION) if n not in names]
    size = {"memory": 16 * GIB, "memory_limit": 0, "disk_free": 100 * GIB, "shared_memory": 8 * GIB}
    laptop = Machine("Debian 12", "glibc 2.36", "x86_64", "3.11.7", 4, 0.0, **size, open_files=65536)
    facts = Facts(
        machine=laptop,
        packages=[*added, *base],
        driver=Driver("", (), "nvidia-smi is not on this machine"),
        tries=tries,
        comet="ready",
        problems={p: [] for p in PURPOSES},
        debian_tools=True,
    )
    return replace(facts, **changes)


def gpu(count: int = 1, **changes: Any) -> Facts:
    """A GPU machine with Transformer Engine."""
    te = package("transformer-engine", "2.9.0")
    tries = {"torch": torch("13.0", count), "loss": Outcome(True, facts={"devices": ["cpu", "cuda"]})}
    tries |= {"transformer-engine": Outcome(True), **changes.pop("tries", {})}
    return good(packages=[te, *changes.pop("packages", [])], tries=tries, driver=SMI, **changes)


def of(facts: Facts, what: str) -> Verdict:
    return {v.what: v for v in verdicts(facts)}[what]


def test_a_laptop_runs_all_but_gpu_training() -> None:
    found = verdicts(good())
    assert {v.what: v.status for v in found if v.status != OK} == {"training on GPU": NO}
    assert exit_code(found) == 0
    assert of(good(), "training on GPU").text == "no NVIDIA GPU is seen here: nvidia-smi is not on this machine"


def test_a_gpu_machine_with_transformer_engine_runs_all() -> None:
    found = verdicts(gpu(8))
    assert [v.status for v in found] == [OK] * len(found) and exit_code(found) == 0
    assert "8 x NVIDIA A800-SXM4-80GB sm_80; Transformer Engine 2.9.0" in of(gpu(8), "training on GPU").text
    assert "agree" in of(gpu(), "loss kernel").text and "hides it" in of(gpu(), "training on CPU").text


BROKEN = Outcome(False, "ImportError: libcudnn.so.9")
WRONG_TE = package("transformer-engine", "2.20.0", fits=False)
NO_TE = package("transformer-engine", None)
FLASH = package("flash-attn", "2.8.3")


def on(count: int = 1, *packages: Package, **tries: Outcome) -> Facts:
    """GPU machine with other packages (first of a name counts) and outcomes."""
    facts = gpu(count, tries={name.replace("_", "-"): o for name, o in tries.items()})
    return replace(facts, packages=[*packages, *facts.packages])


@pytest.mark.parametrize(
    ("facts", "what", "status", "said", "action"),
    [
        (
            good(driver=SMI),
            "training on GPU",
            NO,
            "1 GPU(s) are here, but torch 2.13.0+cpu is a CPU build",
            "CUDA build",
        ),
        (
            good(driver=SMI, tries={"torch": torch("13.0", why="driver too old")}),
            "training on GPU",
            NO,
            "driver 580.65 has 1 GPU(s), torch 2.13.0+13.0 none: driver too old",
            "--gpus all",
        ),
        (good(tries={"torch": BROKEN}), "training on GPU", NO, "torch cannot be imported: ImportError", "make install"),
        (
            on(1, NO_TE),
            "training on GPU",
            LIMITED,
            "sample by sample, which is slow",
            "transformer-engine[pytorch]>=2.9",
        ),
        (on(1, NO_TE, FLASH, flash_attn=Outcome(True)), "training on GPU", LIMITED, "flash-attention for pac", "pip"),
        (on(1, NO_TE, FLASH, flash_attn=BROKEN), "training on GPU", LIMITED, "sample by sample", "pip install"),
        (
            on(1, WRONG_TE),
            "training on GPU",
            NO,
            "version 2.20.0 is not served",
            "'transformer-engine[pytorch]>=2.9,<2.1",
        ),
        (
            on(1, transformer_engine=BROKEN),
            "training on GPU",
            NO,
            "not usable: ImportError: libcudnn.so.9",
            "pip install",
        ),
        (on(1, loss=BROKEN), "training on GPU", LIMITED, "the loss kernel fails: ImportError", "loss.kernel=torch"),
        (on(1, training=BROKEN), "training on GPU", NO, "cannot be imported: ImportError", "make install"),
        (
            gpu(tries={"torch": torch("13.0", gpus=[{**GPU, "capability": "7.5"}])}),
            "training on GPU",
            LIMITED,
            "no bf16 products before sm_80",
            "precision=fp32",
        ),
        (
            replace(gpu(2), machine=replace(good().machine, shared_memory=64 << 20)),
            "training on GPU",
            LIMITED,
            "/dev/shm has 64 MiB",
            "--shm-size",
        ),
        (good(tries={"training": BROKEN}), "training on CPU", NO, "cannot be imported", "make install"),
        (good(tries={"torch": torch(gloo=False)}), "training on CPU", NO, "no gloo", "gloo"),
        (
            good(packages=[package("transformer-engine", "2.9.0")]),
            "training on CPU",
            LIMITED,
            "no GPU is usable",
            "uninstall transformer-engine",
        ),
        (good(tries={"loss": BROKEN}), "loss kernel", NO, "three tokens failed: ImportError", "make install"),
        (good(packages=[package("icu4py", None)]), "preprocessing", LIMITED, "icu4py missing", "sdrrl-nemo[data]"),
        (
            replace(good(), machine=replace(good().machine, open_files=256)),
            "preprocessing",
            LIMITED,
            "256",
            "ulimit -n",
        ),
        (good(packages=[package("gguf", None)]), "make demo", NO, "not installed: gguf", "make install"),
        (good(debian_tools=False), "make demo", NO, "apt-get", "Debian"),
        (good(tries={"evaluation": BROKEN}), "make demo", NO, "needs evaluation", "make install"),
        (replace(good(), machine=replace(good().machine, memory_limit=4 * GIB)), "make demo", LIMITED, "4 GiB", "8 GB"),
        (
            replace(good(), machine=replace(good().machine, disk_free=GIB)),
            "make demo",
            LIMITED,
            "1 GiB of disk",
            "10 GB",
        ),
        (good(comet="absent"), "COMET and CometKiwi", NO, "has not been made", "sdrrl comet-env"),
        (good(comet="unfinished"), "COMET and CometKiwi", NO, "interrupted", "sdrrl comet-env"),
        (good(comet="outdated"), "COMET and CometKiwi", LIMITED, "another version's lock", "sdrrl comet-env"),
    ],
)
def test_what_is_amiss_is_said_with_what_to_do(facts: Facts, what: str, status: str, said: str, action: str) -> None:
    verdict = of(facts, what)
    assert verdict.status == status
    assert said in verdict.text and action in verdict.action


def test_one_gpu_needs_no_shared_memory() -> None:
    assert of(replace(gpu(1), machine=replace(good().machine, shared_memory=64 << 20)), "training on GPU").status == OK


@pytest.mark.parametrize("step", ["preprocessing", "training", "export"])
def test_without_one_of_the_three_the_exit_code_is_1(step: str) -> None:
    assert exit_code(verdicts(good(tries={step: BROKEN}))) == 1


def test_training_on_either_device_is_training() -> None:
    assert exit_code(verdicts(on(1, WRONG_TE))) == 0  # the CPU remains, with the GPU hidden
    assert exit_code(verdicts(good(tries={"evaluation": BROKEN, "planner": BROKEN}))) == 0


def test_versions_that_are_not_served_are_a_limit_with_their_sentence() -> None:
    problems = {p: [] for p in PURPOSES} | {"export": ["torch 2.99 is installed, served are ..."]}
    verdict = of(good(problems=problems), "export")
    assert verdict.status == LIMITED and verdict.action.startswith("torch 2.99")


def test_every_verdict_but_ok_has_an_action() -> None:
    for facts in (good(), gpu(), on(1, NO_TE), good(tries=dict.fromkeys(STEPS, BROKEN), comet="absent")):
        assert all(v.action for v in verdicts(facts) if v.status != OK)


# --- the text ------------------------------------------------------------------------------------------------------


def test_the_report_holds_every_fact_and_verdict() -> None:
    facts = on(2, WRONG_TE, FLASH, flash_attn=BROKEN)
    found = verdicts(facts)
    said = text.as_text(facts, found)
    for v in found:
        assert v.text in said and (v.status == OK or v.action in said)
    assert "2.20.0  NOT SERVED: >=2.9,<2.10" in said
    assert "CANNOT BE IMPORTED: ImportError: libcudnn.so.9" in said
    assert "580.65" in said and "81920 MiB, sm_80" in said and "CUDA 13.0 build" in said
    broken = text.as_text(good(tries={"torch": BROKEN}), verdicts(good(tries={"torch": BROKEN})))
    assert "ImportError: libcudnn.so.9" in broken
    document = json.loads(json.dumps(text.as_json(facts, found, 0)))
    assert [v["status"] for v in document["verdicts"]] == [v.status for v in found]
    assert document["machine"]["cores"] == 4 and document["exit_code"] == 0


def test_no_name_of_a_person_a_machine_or_a_folder_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.platform, "node", lambda: "gpu-node-17")
    monkeypatch.setattr(text.getpass, "getuser", lambda: "mmustermann")
    monkeypatch.setenv("HOME", "/data/people/mmustermann")
    monkeypatch.setattr(text.sys, "prefix", "/data/people/mmustermann/env")
    monkeypatch.setattr(text.os, "getcwd", lambda: "/scratch/secret project")
    said = text.clean(
        {
            "a": "/data/people/mmustermann/env/lib/x.so: cannot open, see /scratch/secret project/work/y",
            "b": ["on gpu-node-17 by mmustermann", "/home/else/x", 3, None],
        }
    )
    assert said == {
        "a": "<environment>/lib/x.so: cannot open, see <here>/work/y",
        "b": ["on <host> by <user>", "~/x", 3, None],
    }
    assert text.clean("mmustermanns gpu-node-177 x") == "mmustermanns gpu-node-177 x"  # other words stay
    assert text.clean(str(text.REPO_ROOT / "tools")).startswith("<")


def test_names_that_say_nothing_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.getpass, "getuser", lambda: "root")
    monkeypatch.setattr(text.platform, "node", lambda: "localhost")
    assert text.clean("root of localhost") == "root of localhost"

    def nobody() -> str:
        raise KeyError("uid not found: 1234")

    monkeypatch.setattr(text.getpass, "getuser", nobody)
    assert text.clean("fine") == "fine"
