"""What will run and what will not, from the facts; each verdict other than OK says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdrrl_nemo.compat.versions import SUPPORTED
from sdrrl_nemo.doctor.machine import GIB, Machine
from sdrrl_nemo.doctor.packages import DEMO, SEGMENTATION, Driver, Package
from sdrrl_nemo.doctor.probes import Outcome

OK, LIMITED, NO = "OK", "LIMITED", "NO"
NEEDED = ("preprocessing", "training", "export")
"""Without these three there is no run: the exit code."""
INSTALL = "make install, in the checkout"
DEMO_MEMORY, DEMO_DISK = 7 * GIB, 8 * GIB
SHARED_MEMORY = GIB
"""NCCL's processes on one machine talk through /dev/shm; containers have 64 MiB of it unless they are told."""
OPEN_FILES = 1024


@dataclass(frozen=True)
class Verdict:
    """``what`` runs, does not, or with limits; ``text`` says how or why, ``action`` what to do (empty where OK)."""

    what: str
    status: str
    text: str
    action: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything the verdicts are drawn from."""

    machine: Machine
    packages: Sequence[Package]
    driver: Driver
    tries: Mapping[str, Outcome]
    comet: str
    """As ``packages.comet_environment`` says it."""
    problems: Mapping[str, Sequence[str]]
    """Purpose -> sentences of ``compat.versions.check_versions``."""
    debian_tools: bool
    """Whether Debian packages can be fetched: the demo's manuals and dictionary are two."""

    def version(self, name: str) -> str | None:
        """Installed version of a package."""
        return next((p.version for p in self.packages if p.name == name), None)

    def usable(self, name: str) -> bool:
        """Installed in a version that is served, and imports."""
        package = next((p for p in self.packages if p.name == name), None)
        return package is not None and package.version is not None and package.fits and self.tries[name].ok

    @property
    def gpus(self) -> list[dict[str, str]]:
        """GPUs that torch can use."""
        return list(self.tries["torch"].facts.get("gpus", []))


def verdicts(facts: Facts) -> list[Verdict]:
    """All of them, in the order of a run."""
    cpu, gpu = _training_cpu(facts), _training_gpu(facts)
    return [
        _preprocessing(facts),
        _simple(facts, "planning", "planner", "plan", "predicts memory and hours"),
        cpu,
        gpu,
        _loss(facts),
        _simple(facts, "export", "export", "export", "writes Hugging Face folders and compares logits"),
        _simple(facts, "evaluation", "evaluation", "evaluate", "held-out data and benchmarks"),
        _comet(facts),
        _demo(facts),
    ]


def exit_code(found: Sequence[Verdict]) -> int:
    """0 where preprocessing, training (on whatever is here) and export can run, else 1."""
    can = [v.what for v in found if v.status != NO]
    return 0 if all(any(what.startswith(needed) for what in can) for needed in NEEDED) else 1


def _simple(facts: Facts, what: str, step: str, purpose: str, text: str) -> Verdict:
    """By the import and by the versions."""
    outcome, problems = facts.tries[step], facts.problems[purpose]
    if not outcome.ok:
        return Verdict(what, NO, f"cannot be imported: {outcome.error}", "; ".join(problems) or INSTALL)
    if problems:
        return Verdict(what, LIMITED, "imports, in versions that nobody has run together", "; ".join(problems))
    return Verdict(what, OK, text)


def _preprocessing(facts: Facts) -> Verdict:
    verdict = _simple(facts, "preprocessing", "preprocessing", "data", "")
    if verdict.status != OK:
        return verdict
    m = facts.machine
    text = f"{m.usable_cores:g} cores, {m.usable_memory / GIB:.0f} GiB"
    missing = [name for name in SEGMENTATION if facts.version(name) is None]
    if missing:
        return Verdict(
            "preprocessing",
            LIMITED,
            f"{text}; no translation by sentences, no code-switching: {', '.join(missing)} missing",
            "pip install 'sdrrl-nemo[data]'",
        )
    if m.open_files < OPEN_FILES:
        return Verdict(
            "preprocessing", LIMITED, f"{text}; only {m.open_files} files may be open at once", "ulimit -n 4096"
        )
    return Verdict("preprocessing", OK, text)


def _training_cpu(facts: Facts) -> Verdict:
    what = "training on CPU"
    if facts.gpus:
        return Verdict(what, OK, "not used: a GPU is here, and CUDA_VISIBLE_DEVICES= hides it")
    verdict = _simple(
        facts, what, "training", "train", "local layers, torch's attention sample by sample, torch's loss"
    )
    if verdict.status == NO:
        return verdict
    if not facts.tries["torch"].facts.get("gloo", False):
        return Verdict(what, NO, "this torch has no gloo, by which processes on CPUs talk", "install a torch with gloo")
    if facts.version("transformer-engine") is not None:
        return Verdict(
            what,
            LIMITED,
            "transformer-engine is installed and no GPU is usable: megatron-core may take its optimiser, which fails",
            "pip uninstall transformer-engine, or train where a GPU is",
        )
    return verdict


def _training_gpu(facts: Facts) -> Verdict:
    what = "training on GPU"
    if not facts.gpus:
        return Verdict(what, NO, *_why_no_gpu(facts))
    names = ", ".join(sorted({f"{g['name']} sm_{g['capability'].replace('.', '')}" for g in facts.gpus}))
    verdict = _simple(facts, what, "training", "train", "")
    if verdict.status == NO:
        return verdict
    if not facts.tries["loss"].ok:
        return Verdict(
            what, LIMITED, f"{names}; the loss kernel fails: {facts.tries['loss'].error}", "loss.kernel=torch"
        )
    if min(float(g["capability"]) for g in facts.gpus) < 8:
        return Verdict(
            what,
            LIMITED,
            f"{names}: no bf16 products before sm_80",
            "train with trainer.precision=fp32, or on a newer GPU",
        )
    te = facts.version("transformer-engine")
    if te is not None and not facts.usable("transformer-engine"):
        error = facts.tries["transformer-engine"].error or f"version {te} is not served"
        return Verdict(
            what,
            NO,
            f"{names}; transformer-engine is installed and not usable: {error}",
            _install("transformer-engine"),
        )
    if te is None:
        fast = facts.usable("flash-attn")
        how = "flash-attention for packed rows" if fast else "torch's attention sample by sample, which is slow"
        return Verdict(
            what, LIMITED, f"{names}; local layers, {how}; Transformer Engine is absent", _install("transformer-engine")
        )
    if len(facts.gpus) > 1 and facts.machine.shared_memory < SHARED_MEMORY:
        size = facts.machine.shared_memory >> 20
        return Verdict(
            what,
            LIMITED,
            f"{names}; /dev/shm has {size} MiB, by which NCCL's processes on one machine talk",
            "start the container with --shm-size=16g or --ipc=host",
        )
    if verdict.status == LIMITED:
        return verdict
    return Verdict(what, OK, f"{len(facts.gpus)} x {names}; Transformer Engine {te} layers and attention")


def _install(package: str) -> str:
    extra = "[pytorch]" if package == "transformer-engine" else ""
    return f"pip install --no-build-isolation '{package}{extra}{SUPPORTED[package].versions}' (docs/versions.md)"


def _why_no_gpu(facts: Facts) -> tuple[str, str]:
    """(why, what to do)."""
    torch = facts.tries["torch"]
    if not torch.ok:
        return f"torch cannot be imported: {torch.error}", INSTALL
    build = torch.facts["version"]
    if facts.driver.gpus and not torch.facts["cuda"]:
        action = "install torch's CUDA build: pip install --force-reinstall torch, from an index that serves it"
        return f"{len(facts.driver.gpus)} GPU(s) are here, but torch {build} is a CPU build", action
    if not facts.driver.gpus:
        return f"no NVIDIA GPU is seen here: {facts.driver.error}", "nothing, or train where a GPU is: docs/cluster.md"
    why = torch.facts.get("why", "torch sees none")
    action = "update the driver, unset CUDA_VISIBLE_DEVICES, or start the container with --gpus all"
    return f"driver {facts.driver.version} has {len(facts.driver.gpus)} GPU(s), torch {build} none: {why}", action


def _loss(facts: Facts) -> Verdict:
    what, outcome = "loss kernel", facts.tries["loss"]
    if not outcome.ok:
        return Verdict(
            what, NO, f"a loss of three tokens failed: {outcome.error}", "; ".join(facts.problems["kernels"]) or INSTALL
        )
    if "cuda" in outcome.facts["devices"]:
        return Verdict(what, OK, "Triton on the GPU and torch on the CPU agree")
    return Verdict(what, OK, "torch's path; Triton's kernels are for GPUs")


def _comet(facts: Facts) -> Verdict:
    what = "COMET and CometKiwi"
    if facts.comet == "ready":
        return Verdict(what, OK, "their environment is there; the models must be on disk (docs/quality.md)")
    texts = {
        "absent": "their environment has not been made; all else runs without it",
        "unfinished": "making their environment was interrupted",
        "outdated": "their environment was made from another version's lock",
    }
    status = LIMITED if facts.comet == "outdated" else NO
    return Verdict(what, status, texts[facts.comet], "sdrrl comet-env, or in the checkout: make comet-env")


def _demo(facts: Facts) -> Verdict:
    what, m = "make demo", facts.machine
    broken = [step for step in (*NEEDED, "evaluation") if not facts.tries[step].ok]
    if broken:
        return Verdict(what, NO, f"it needs {' and '.join(broken)}, see above", INSTALL)
    missing = [name for name in (*DEMO, *SEGMENTATION) if facts.version(name) is None]
    if missing:
        return Verdict(what, NO, f"not installed: {', '.join(missing)}", INSTALL)
    if not facts.debian_tools:
        text = "its manuals and its dictionary are Debian packages, and apt-get or dpkg-deb is not here"
        return Verdict(what, NO, text, "run it on Debian or Ubuntu, or unpack them yourself (docs/preprocessing.md)")
    if 0 < m.usable_memory < DEMO_MEMORY or 0 < m.disk_free < DEMO_DISK:
        text = f"{m.usable_memory / GIB:.0f} GiB of memory, {m.disk_free / GIB:.0f} GiB of disk free: it may not fit"
        return Verdict(what, LIMITED, text, "8 GB of memory and 10 GB of disk; make demo-short needs less")
    return Verdict(what, OK, "about 15 minutes on 2 cores")
