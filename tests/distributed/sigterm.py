"""SIGTERM as launchers send it: torchrun hands it to the process group of each rank, Slurm signals every process.

    python -m tests.distributed.sigterm --tries 20 --json docs/results/sigterm.json

Every layout trains a tiny model once undisturbed. Then the same command is started again and again in one run
directory; each start is asked to end, by one launcher at one moment, and must leave the checkpoint of its last step.
At the end the rows of the metrics and the tensors of the last checkpoint must have the bits of the undisturbed run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import provenance
from tests.distributed.chaos import LAYOUTS, Bench, fingerprint_of
from tests.launch import ROOT, descendants, environment, signalled
from tests.runs import metric_rows, steps_done

STEPS, EVERY = 48, 3
DP2 = {"optim.use_distributed_optimizer": "true"}
RUNS: dict[str, dict[str, Any]] = {**LAYOUTS, "DP2, distributed optimizer": DP2}
SRUN = """#!/usr/bin/env bash
while [[ $1 != bash ]]; do shift; done
echo $$ > "$RECORD/step"
SLURMD_NODENAME=localhost exec "$@"
"""
SCANCEL = """#!/usr/bin/env bash
exec "$PYTHON" -c "import signal, sys
from tests.launch import descendants, signalled
signalled([int(sys.argv[1]), *descendants(int(sys.argv[1]))], signal.SIGTERM)" "$(cat "$RECORD/step")"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then echo localhost; else echo "$*" >> "$RECORD/scontrol"; fi
"""


def everybody(pid: int) -> None:
    """What Slurm does, and a container's runtime: the signal goes to every process of the job, in no order."""
    signalled([pid, *descendants(pid)], signal.SIGTERM)


def twice(send: Callable[[int], None]) -> Callable[[int], None]:
    """The second comes while the first is being answered."""

    def both(pid: int) -> None:
        send(pid)
        time.sleep(0.2)
        send(pid)

    return both


def launcher_alone(pid: int) -> None:
    """As kubelet, systemd or a user do: torchrun, or the job's script, hears it and hands it on."""
    signalled([pid], signal.SIGTERM)


LAUNCHERS: dict[str, Callable[[int], None]] = {
    "torchrun": launcher_alone,
    "torchrun, twice": twice(launcher_alone),
    "every process": everybody,
    "every process, twice": twice(everybody),
    "train.sbatch": launcher_alone,
}
MOMENTS = ("between saves", "during a save")


class Tries:
    """One run directory of one layout, which goes on from start to start."""

    def __init__(self, bench: Bench, layout: str, folder: Path) -> None:
        self.bench, self.layout, self.run, self.folder = bench, layout, folder / "run", folder
        folder.mkdir(parents=True, exist_ok=True)

    def keys(self, run: Path) -> list[str]:
        settings = {"run_dir": run, "trainer.max_steps": STEPS, "trainer.save_every": EVERY, **RUNS[self.layout]}
        return [f"{k}={v}" for k, v in settings.items()]

    def command(self, launcher: str) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment."""
        recipe = ["--config", str(self.bench.config), *self.keys(self.run)]
        if launcher != "train.sbatch":
            start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            return [*start, "recipes/sdrrl_pretrain.py", *recipe], environment()
        return ["bash", "configs/clusters/train.sbatch", *recipe[2:]], self.slurm()

    def slurm(self) -> dict[str, str]:
        """A job on this machine whose Slurm is a stand-in."""
        programs, record = self.folder / "bin", self.folder / "record"
        programs.mkdir(exist_ok=True)
        record.mkdir(exist_ok=True)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        (programs / "torchrun").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n')
        (programs / "torchrun").chmod(0o755)
        job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "4321", "SLURM_JOB_NODELIST": "localhost"}
        job |= {"SLURM_GPUS_ON_NODE": "2", "RECORD": str(record), "TORCHRUN": str(programs / "torchrun")}
        job |= {"CONFIG": str(self.bench.config), "PYTHON": sys.executable}
        return environment() | job | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def attempt(self, launcher: str, moment: str) -> dict[str, Any]:
        """Start, ask to end at ``moment``, and see what is left."""
        if (self.run / "finished.json").is_file():  # a signal came too late: the next try begins anew
            shutil.rmtree(self.run)
        before, log = steps_done(self.run), self.folder / "log"
        command, env = self.command(launcher)
        with open(log, "wb") as out:
            p = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out, start_new_session=True)
            self.wait_for(moment, before, p, log)
            asked = steps_done(self.run)
            LAUNCHERS[launcher](p.pid)
            code = p.wait(timeout=300)
        said = log.read_text(errors="replace")
        return {
            "layout": self.layout,
            "launcher": launcher,
            "moment": moment,
            "steps_before": before,
            "asked_after_step": asked,
            "last_step": steps_done(self.run),
            "newest_checkpoint": self.newest(),
            "exit_code": code,
            "saved": self.newest() == steps_done(self.run) > before and "SIGTERM after step" in said,
            "stack_trace_of_ours": "sdrrl_nemo/" in said and "Traceback" in said,
        }

    def wait_for(self, moment: str, before: int, p: subprocess.Popen[bytes], log: Path) -> None:
        """Until two checkpoints of this start are there, and then until the moment."""
        deadline, seen = time.monotonic() + 300, False
        while not seen:
            if p.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")[-4000:])
            done = steps_done(self.run)
            saving = any((self.run / "checkpoints").glob("unfinished-*"))
            warm = done > before and self.newest() > before
            seen = warm and (saving if moment == "during a save" else not saving and done % EVERY == 1)
            time.sleep(0.001)

    def newest(self) -> int:
        """Step of the newest checkpoint."""
        found = [int(p.name.removeprefix("step-")) for p in (self.run / "checkpoints").glob("step-*")]
        return max(found, default=0)

    def finish(self) -> dict[str, bool]:
        """The same command until its end, and one that nobody disturbs: are they the same?"""
        launch, env = self.command("torchrun")
        straight = self.folder / "straight"
        other = [word.replace(str(self.run), str(straight)) for word in launch]
        for command in ([*launch, "trainer.save_every=0"], [*other, "trainer.save_every=0"]):
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(done.stderr[-4000:])
        return {
            "same_rows": metric_rows(self.run) == metric_rows(straight),
            "same_checkpoint": fingerprint_of(self.run) == fingerprint_of(straight),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--layouts", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--base", type=Path, default=ROOT / "work/models/SmolLM2-135M-Instruct")
    args = parser.parse_args()
    plan = itertools.islice(itertools.cycle(itertools.product(MOMENTS, LAUNCHERS)), args.tries)
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, progress(None, "tries", total=args.tries) as bar:
        bench = Bench(Path(folder), args.base)
        runs = [Tries(bench, name, Path(folder) / str(i)) for i, name in enumerate(args.layouts)]
        for (moment, launcher), tries in zip(plan, itertools.cycle(runs), strict=False):
            facts.append(tries.attempt(launcher, moment))
            print(json.dumps(facts[-1]), file=sys.stderr, flush=True)
            bar.update()
        ends = {tries.layout: tries.finish() for tries in runs}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        **provenance(),
        "tries": len(facts),
        "saved": sum(f["saved"] for f in facts),
        "stack_traces_of_ours": sum(f["stack_trace_of_ours"] for f in facts),
        "ends": ends,
        "starts": facts,
    }
    if args.json:
        write_json(args.json, result)
    print(json.dumps({k: v for k, v in result.items() if k != "starts"}, indent=1))


if __name__ == "__main__":
    main()
