"""Training under faults: killed ranks, SIGTERM, full disks, damaged checkpoints, at random moments.

    python -m tests.distributed.chaos --faults 30 --json docs/results/chaos.json

Every layout trains a tiny model once undisturbed. Then the same command meets one fault after another in one run
directory until it is done, and every row of the metrics and every tensor of the last checkpoint must have the same
bits. A full disk is a small file system of its own where mounting is allowed, else a limit on the size of files.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import provenance
from tests.launch import ROOT, descendants, environment, signalled
from tests.runs import checkpoint_tensors, metric_rows, steps_done
from tests.tiny import packed_set, tiny_model
from tests.warm import python

STEPS, EVERY = 24, 3
LAYOUTS: dict[str, dict[str, Any]] = {
    "TP2, SP": {"trainer.tp": 2, "trainer.sequence_parallel": "true"},
    "PP2": {"trainer.pp": 2},
    "DP2, distributed optimizer, asynchronous": {
        "optim.use_distributed_optimizer": "true",
        "trainer.async_checkpoints": "true",
    },
}
KILLS = ("one rank", "all", "SIGTERM")
DAMAGE = ("flipped byte", "truncated file", "deleted file")
KINDS = (*KILLS, "full disk", *DAMAGE)
SENTENCE = re.compile(r"^error: .+|.+; going back to the checkpoint before it$|.+: SIGTERM after step \d+; .+$", re.M)


@dataclass
class Bench:
    """Model, data and configuration in one folder."""

    folder: Path
    base: Path
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        model = tiny_model(self.folder / "model", self.base)
        packed_set(self.folder / "data", model)
        settings = {
            "run_dir": "unset",
            "model": {"hf_path": str(model), "pad_heads_to": 2},
            "data": {"path": str(self.folder / "data")},
            "trainer": {
                "precision": "fp32",
                "global_batch_size": 4,
                "max_steps": STEPS,
                "save_every": EVERY,
                "keep_checkpoints": 3,
                "num_threads": 1,
            },
            "optim": {"lr": 1.0e-3, "warmup_steps": 2},
        }
        self.config = self.folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(settings))

    def command(self, run: Path, layout: dict[str, Any]) -> list[str]:
        """The user's command."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        keys = [f"{k}={v}" for k, v in {"run_dir": run, **layout}.items()]
        return [*launcher, "recipes/sdrrl_pretrain.py", "--config", str(self.config), *keys]


def ranks_of(pid: int) -> list[int]:
    """Direct children of the launcher that run the recipe."""
    out = []
    for child in descendants(pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and b"recipes/sdrrl_pretrain.py" in words:
            out.append(child)
    return sorted(out)


def strike(kind: str, launcher: subprocess.Popen[bytes], rng: random.Random) -> None:
    """One of KILLS."""
    if kind == "one rank":
        signalled([rng.choice(ranks_of(launcher.pid))], signal.SIGKILL)
    elif kind == "SIGTERM":
        signalled([p for rank in ranks_of(launcher.pid) for p in (rank, *descendants(rank))], signal.SIGTERM)
    else:
        signalled([launcher.pid, *descendants(launcher.pid)], signal.SIGKILL)


def damaged(kind: str, run: Path, rng: random.Random) -> str:
    """Damage one file of the newest checkpoint; returns its name, empty if there is no checkpoint to fall back to."""
    found = sorted((run / "checkpoints").glob("step-*"))
    if len(found) < 2:
        return ""
    files = sorted(p for p in found[-1].rglob("*") if p.is_file() and p.stat().st_size)
    victim = rng.choice(files)
    data = bytearray(victim.read_bytes())
    if kind == "deleted file":
        victim.unlink()
    elif kind == "truncated file":
        victim.write_bytes(data[: len(data) // 2])
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)
    return str(victim.relative_to(run))


class SmallDisk:
    """Room for a run directory that a filler file can take away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self, leave: int) -> None:
        """Leave ``leave`` bytes, or fewer where the run writes at the same moment."""
        with open(self.filler, "wb") as f:
            for _ in range(100):
                size = max(1, shutil.disk_usage(self.folder).free - leave)
                try:
                    os.posix_fallocate(f.fileno(), 0, size)
                    return
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


def attempt(
    bench: Bench, run: Path, layout: dict[str, Any], kind: str | None, disk: SmallDisk, rng: random.Random, first: int
) -> dict[str, Any]:
    """One start of the command, with one fault, not before step ``first``; what happened."""
    before = steps_done(run)
    at = rng.randint(max(first, before + 1), max(first, before + 1, STEPS - 3))
    facts: dict[str, Any] = {"fault": kind, "asked_at_step": at}
    command, log = bench.command(run, layout), run.parent / f"{run.name}.log"
    if kind in DAMAGE:
        facts["file"] = damaged(kind, run, rng)
    if kind == "full disk" and not disk.mounted:
        limit = rng.choice([64, 512, 2048])
        command = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command]
    with open(bench.folder / log.name, "wb") as out:
        p = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=out, stderr=out, start_new_session=True)
        deadline = time.monotonic() + 600
        while kind in (*KILLS, "full disk") and p.poll() is None and steps_done(run) < at:
            if time.monotonic() > deadline:
                raise AssertionError((bench.folder / log.name).read_text()[-4000:])
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3 if kind in KILLS else 0)
        facts["steps_logged"] = steps_done(run)
        if kind in KILLS and p.poll() is None:
            strike(str(kind), p, rng)
        if kind == "full disk" and disk.mounted and p.poll() is None:
            disk.fill(leave=rng.choice([0, 20_000, 2_000_000]))
        facts["exit_code"] = p.wait(timeout=600)
    disk.filler.unlink(missing_ok=True)
    said = (bench.folder / log.name).read_text(errors="replace")
    facts["said"] = [line.replace(str(run), "RUN") for line in dict.fromkeys(SENTENCE.findall(said))]
    facts["stack_trace_of_ours"] = "sdrrl_nemo/" in said and "Traceback" in said
    facts["silent"] = kind == "full disk" and facts["exit_code"] != 0 and not facts["said"]
    if facts["stack_trace_of_ours"] or facts["silent"]:
        facts["output"] = said[-3000:]
    return facts


def fingerprint(run: Path) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of the last checkpoint, optimiser included."""
    digest = hashlib.sha256()
    for name, t in checkpoint_tensors(run):
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of(run: Path) -> str:
    """The same in a process of its own: loading needs a process group."""
    done = python("tests/distributed/chaos.py", "--fingerprint", str(run))
    if done.returncode:
        raise AssertionError(done.stdout[-3000:])
    return done.stdout.strip().splitlines()[-1]


def chosen(todo: Sequence[str], run: Path) -> tuple[str | None, int]:
    """The next fault and the step before which it must not strike; None: the run may end.

    Damage needs two checkpoints of a run that goes on: it is done as soon as there are, and where only damage is left,
    killing all processes leaves them.
    """
    damage = [k for k in todo if k in DAMAGE]
    if not todo or steps_done(run) >= STEPS - 4:
        return None, 1
    if damage and len(list((run / "checkpoints").glob("step-*"))) > 1:
        return damage[0], 1
    others = [k for k in todo if k not in DAMAGE]
    return (others[0] if others else "all"), 2 * EVERY + 2 if damage else 1


def disturbed(
    bench: Bench, name: str, kinds: list[str], rng: random.Random, tick: Any = lambda: None
) -> list[dict[str, Any]]:
    """The faults of one layout, one after another, in as many run directories as they need; the facts of each start."""
    layout, out = LAYOUTS[name], []
    slug = re.sub(r"\W+", "-", name)
    straight = bench.folder / f"{slug}-straight"
    done = subprocess.run(
        bench.command(straight, layout), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr[-4000:])
    expected, digest = metric_rows(straight), fingerprint_of(straight)
    todo, number, in_vain = list(kinds), 0, 0
    while todo:
        disk = SmallDisk(bench.folder / f"{slug}-{number}")
        run = disk.folder / "run"
        try:
            while not (run / "finished.json").is_file():
                kind, first = chosen(todo, run)
                facts = {"layout": name, **attempt(bench, run, layout, kind, disk, rng, first)}
                out.append(facts)
                print(json.dumps({k: v for k, v in facts.items() if k != "output"}), file=sys.stderr, flush=True)
                in_vain = 0 if kind in todo else in_vain + 1  # a run that never gets on
                if in_vain > 2:
                    raise AssertionError(facts.get("output", facts))
                if kind in todo:
                    todo.remove(kind)
                    tick()
            facts["same_rows"] = metric_rows(run) == expected
            facts["same_checkpoint"] = fingerprint_of(run) == digest
            facts["left_over"] = [p.name for p in (run / "checkpoints").glob("unfinished-*")]
        finally:
            disk.close()
        number += 1
    return out


def verdict(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts; a fault is survived when the run that met it ended as the undisturbed one."""
    ends = [f for f in facts if "same_rows" in f]
    damage = [f for f in facts if f["fault"] in DAMAGE]
    named = [f for f in damage if any(f["file"].split("/")[-1] in s or "is missing" in s for s in f["said"])]
    return {
        "faults": sum(f["fault"] is not None for f in facts),
        "by_kind": {k: sum(f["fault"] == k for f in facts) for k in KINDS},
        "runs": len(ends),
        "runs_with_the_same_rows": sum(f["same_rows"] for f in ends),
        "runs_with_the_same_checkpoint": sum(f["same_checkpoint"] for f in ends),
        "damaged_files": len(damage),
        "damaged_files_named": len(named),
        "stack_traces_of_ours": sum(f["stack_trace_of_ours"] for f in facts),
        "full_disks_without_a_sentence": sum(f["silent"] for f in facts),
        "left_over": sum(len(f["left_over"]) for f in ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--base", type=Path, default=ROOT / "work/models/SmolLM2-135M-Instruct")
    parser.add_argument("--fingerprint", type=Path, help="print the fingerprint of a run's last checkpoint")
    args = parser.parse_args()
    if args.fingerprint:
        from sdrrl_nemo.compat.start import prepare

        prepare()
        from sdrrl_nemo.model import standalone

        standalone.init_parallel()
        print(fingerprint(args.fingerprint))
        return
    rng = random.Random(args.seed)
    kinds = [KINDS[i % len(KINDS)] for i in range(args.faults)]
    rng.shuffle(kinds)
    facts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, progress(None, "faults", total=args.faults) as bar:
        bench = Bench(Path(folder), args.base)
        for i, name in enumerate(args.layouts):
            facts += disturbed(bench, name, kinds[i :: len(args.layouts)], rng, bar.update)
            result = {"date": datetime.now(UTC).date().isoformat(), **provenance(), **verdict(facts), "starts": facts}
            if args.json:
                write_json(args.json, result)  # after every layout: a later failure does not lose it
    print(json.dumps({k: v for k, v in result.items() if k != "starts"}, indent=1))


if __name__ == "__main__":
    main()
