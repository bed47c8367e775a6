"""y_hat from a checkpoint that this project trained: exported once to a Hugging Face folder, then the engine 'hf'."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common import cli
from sdrrl_nemo.common.config import read_key
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.data.engines.base import GENERATORS, Answer
from sdrrl_nemo.data.engines.contents import contents, is_sealed, matching, seal
from sdrrl_nemo.data.engines.generate.answers import TellingGenerator
from sdrrl_nemo.data.engines.generate.hf import DTYPES, HfGenerator
from sdrrl_nemo.data.engines.generate.in_process import CARRIED_FILES
from sdrrl_nemo.data.rows import Message

WEIGHTS = ("auto", "model", "master")
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
"""What a launcher sets; the export is a process group of its own."""
EXPORT = f"import sys; from {__name__} import export_here; from {cli.__name__} import run; sys.exit(run(export_here))"
REVISION = 4
"""Changes whenever the code here may give another answer to the same question."""
_STEP = re.compile(r"step-(\d{6,})")


@GENERATORS.register("nemo_checkpoint")
class NemoCheckpointGenerator(TellingGenerator):
    """``run`` is a training run's directory (its newest finished checkpoint answers), or ``checkpoint`` one checkpoint
    and ``base`` the Hugging Face folder it started from.

    The export (weights ``auto``, ``model`` or ``master``, as in tools/export_hf.py; checked logit by logit) lies in
    ``cache`` under a key of the checkpoint's and the base's bytes. The other options are those of the engine 'hf'.
    """

    def __init__(
        self,
        run: str = "",
        checkpoint: str = "",
        base: str = "",
        weights: str = "auto",
        cache: str = "work/cache/hf_exports",
        max_new_tokens: int = 256,
        batch_size: int = 16,
        dtype: str = "float32",
        device: str = "auto",
        unfinished: str = "drop",
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        repetition_penalty: float = 1.0,
        stop_loops: int = 0,
        licence: str | None = None,
        templates: Mapping[str, Any] | None = None,
    ) -> None:
        if weights not in WEIGHTS:
            raise SdrrlError(f"generator 'nemo_checkpoint': weights '{weights}' is unknown{suggest(weights, WEIGHTS)}")
        self._checkpoint, self._base = _resolve(run, checkpoint, base)
        self._weights, self._cache = weights, Path(cache)
        self._options = {
            "max_new_tokens": max_new_tokens,
            "batch_size": batch_size,
            "dtype": dtype,
            "device": device,
            "unfinished": unfinished,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "repetition_penalty": repetition_penalty,
            "stop_loops": stop_loops,
            "templates": templates,
        }
        # The base folder stands in for the export that is yet to be made: options are wrong now, not hours later.
        stand_in = HfGenerator(str(self._base), **self._options, licence=licence)  # type: ignore[arg-type]
        self.licence, self.unfinished = stand_in.licence, stand_in.unfinished

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Checkpoint's name and every option that can change an answer."""
        plain = {"repetition_penalty": 1.0, "stop_loops": 0}  # without them old answers stay what they were
        options = {k: v for k, v in self._options.items() if k != "device" and plain.get(k, ...) != v}
        return f"nemo_checkpoint/{self._checkpoint.name}/{content_key(REVISION, self._weights, options)}"

    def files(self, *languages: str) -> Iterable[Path]:
        # What the export is made of: the export itself is yet to be made when a run is planned.
        tensors = [self._checkpoint / "weights", *matching(self._checkpoint.parent.parent, ("chat_template.jinja",))]
        return [*tensors, *matching(self._base, CARRIED_FILES)]

    def check(self, *languages: str) -> None:
        """Whether the base's folder, whose tokenizer and template the export gets, can be used."""
        super().check(*languages)
        HfGenerator(str(self._base), **self._options).check(*languages)  # type: ignore[arg-type]

    def try_out(self) -> None:
        """Whether the device is there."""
        HfGenerator(str(self._base), **self._options).try_out()  # type: ignore[arg-type]

    @cached_property
    def _key(self) -> str:
        """Bytes of the checkpoint's tensors and of the base's tokenizer and configuration."""
        return content_key(contents(self.files()), self._weights)

    @cached_property
    def _hf(self) -> HfGenerator:
        """The engine 'hf' on the export, which is made now where it is not yet there."""
        stored = "bf16" if self._options["dtype"] == DTYPES[1] else "fp32"
        folder = self._cache / f"{self._checkpoint.name}-{self._key}-{stored}"
        self._cache.mkdir(parents=True, exist_ok=True)
        with open(self._cache / f".{folder.name}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers that start together wait for one export
            if not is_sealed(folder):  # an interrupted, edited or damaged export is made anew
                shutil.rmtree(folder, ignore_errors=True)
                export(self._checkpoint, self._base, folder, self._weights, stored)
                seal(folder)
        return HfGenerator(str(folder), **self._options, licence=self.licence)  # type: ignore[arg-type]

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        return self._hf.answers_to(conversations) if conversations else []


def _resolve(run: str, checkpoint: str, base: str) -> tuple[Path, Path]:
    """(checkpoint, base folder) of the options; what is not named comes from the run."""
    where = "generator 'nemo_checkpoint'"
    if not run and not (checkpoint and base):
        raise SdrrlError(f"{where}: give 'run', or both 'checkpoint' and 'base'")
    chosen = Path(checkpoint) if checkpoint else _newest(Path(run))
    if not (chosen / "weights" / "metadata.json").is_file():
        raise SdrrlError(f"{where}: {chosen} is no finished Megatron checkpoint (weights/metadata.json is missing)")
    if not base:
        base = str(read_key(Path(run) / "config.yaml", "model.hf_path"))
    return chosen, Path(base)


def _newest(run: Path) -> Path:
    """Last finished checkpoint of a run; unfinished ones carry another name."""
    found = [(int(m[1]), p) for p in (run / "checkpoints").glob("*") if (m := _STEP.fullmatch(p.name)) and p.is_dir()]
    if not found:
        raise SdrrlError(f"generator 'nemo_checkpoint': {run}/checkpoints holds no finished checkpoint; train first")
    return max(found)[1]


def export(checkpoint: Path, base: Path, folder: Path, weights: str, dtype: str) -> None:
    """Run ``export_checkpoint`` in a process of its own: Megatron's process group and its CPU adaptation stay there."""
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    command = [sys.executable, "-c", EXPORT, str(checkpoint), str(base), str(folder), weights, dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise SdrrlError(f"{checkpoint}: the export to {folder} failed: {said[-1] if said else done.returncode}")


def export_here(argv: Sequence[str]) -> None:
    """Body of the export's own process: checkpoint, base, folder, weights, dtype."""
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from sdrrl_nemo.model.export import export_checkpoint

    checkpoint, base, folder, weights, dtype = argv
    export_checkpoint(Path(checkpoint), Path(base), Path(folder), weights=weights, dtype=dtype)
