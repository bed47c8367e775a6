"""Preprocessing on a Ray cluster of three machines, one of which is lost, cut off, or the head (tests/namespaces.py).

    python -m tests.distributed.ray_machines --json docs/results/ray_machines.json     (root, iproute2)

Each machine is a network namespace with an address, a host name and a /tmp/ray of its own; they share nothing but a
switch and the folder of the run. Whatever happens, the published files must be those of one process alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance
from tests.end_to_end.data_chaos import counts, final_bytes, finish
from tests.launch import ROOT, environment, signalled
from tests.namespaces import ip, machines, port, processes
from tests.unit.data.tiny_run import tiny_config

NODES = {"sdrrl-head": "10.78.0.1", "sdrrl-b": "10.78.0.2", "sdrrl-c": "10.78.0.3"}
HEAD, SECOND, THIRD = NODES
PORT = 6379
LAUNCHER = ROOT / "configs/clusters/preprocess_ray.sbatch"
SRUN = """#!{python}
# Slurm's srun, as far as the script asks for it: the command runs on each node that --nodelist names.
import subprocess, sys
options = [a for a in sys.argv[1:] if a.startswith("--nodelist=")]
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
from pathlib import Path
from tests.namespaces import on
nodes = options[0].partition("=")[2].split(",")
started = [subprocess.Popen(on(n, command, {{Path("/tmp/ray"): Path("{folder}") / n}})) for n in nodes]
sys.exit(max(p.wait() for p in started))
"""
SCONTROL = "#!/bin/sh\nprintf '" + "\\n".join(NODES) + "\\n'\n"


class Cluster:
    """Three machines, the files they share in ``folder``, and what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "bin"
        self.tools.mkdir()
        for name, text in (("srun", SRUN.format(python=sys.executable, folder=folder / "ray")), ("scontrol", SCONTROL)):
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)

    def submit(self, config: Path, output: Path) -> subprocess.Popen[bytes]:
        """The launcher as ``sbatch`` starts it, on machines that have just been given to the job."""
        for node in NODES:
            (self.folder / "ray" / node).mkdir(parents=True, exist_ok=True)
        environ = environment() | {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "sdrrl-[head,b,c]"}
        environ |= {"SLURM_CPUS_ON_NODE": "1", "CONFIG": str(config), "VENV": str(Path(sys.executable).parents[1])}
        environ |= {"PATH": f"{self.tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "4321"}
        keys = [f"output_dir={output}", "execution.workers=3", "execution.retries=5"]
        with open(output.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(["bash", str(LAUNCHER), *keys], stdout=log, stderr=log, env=environ, cwd=ROOT)

    def lose(self, node: str) -> int:
        """All processes of a machine die at once; returns how many they were."""
        pids = processes(node)
        signalled(pids, signal.SIGSTOP)  # none gets away or sees another's end
        signalled(pids, signal.SIGKILL)
        return len(pids)

    def end(self) -> None:
        """The job is over: nothing of it stays on its machines."""
        for node in NODES:
            while pids := processes(node):
                signalled(pids, signal.SIGKILL)
                time.sleep(0.1)


def workers() -> Counter[str]:
    """Workers of the run on each machine."""
    found: Counter[str] = Counter()
    for node in NODES:
        for pid in processes(node):
            try:
                found[node] += " ".join(psutil.Process(pid).cmdline()).startswith("ray::QuietWorker")
            except psutil.NoSuchProcess:
                continue
    return +found


def until(job: subprocess.Popen[bytes], output: Path, shards: int) -> Counter[str]:
    """Wait for so many finished shards; returns where workers were seen meanwhile."""
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + 300
    while job.poll() is None and sum(1 for _ in output.rglob("*.facts.json")) < shards:
        if time.monotonic() > deadline:
            raise AssertionError(output.with_suffix(".log").read_text()[-3000:])
        seen |= workers()
        time.sleep(0.05)
    return seen | workers()


def undisturbed(cluster: Cluster, config: Path, output: Path, whole: int) -> dict[str, Any]:
    """Nothing happens."""
    job = cluster.submit(config, output)
    seen = until(job, output, whole)
    return {"exit_codes": [job.wait(300)], "workers_seen": dict(seen)}


def machine_lost(cluster: Cluster, config: Path, output: Path, whole: int) -> dict[str, Any]:
    """The third machine loses all its processes in the middle; the run goes on with the other two."""
    job = cluster.submit(config, output)
    seen = until(job, output, whole // 3)
    killed = cluster.lose(THIRD)
    return {"processes_killed": killed, "exit_codes": [job.wait(600)], "workers_seen": dict(seen)}


def machine_cut_off(cluster: Cluster, config: Path, output: Path, whole: int) -> dict[str, Any]:
    """The third machine's cable is pulled; its worker lives on and finishes shards that others are given too."""
    job = cluster.submit(config, output)
    seen = until(job, output, whole // 3)
    number = list(NODES).index(THIRD)
    ip("link", "set", port(number), "down")
    code = job.wait(600)
    ip("link", "set", port(number), "up")
    return {"exit_codes": [code], "workers_seen": dict(seen)}


def head_lost(cluster: Cluster, config: Path, output: Path, whole: int) -> dict[str, Any]:
    """The head and the driver die; the job is submitted again."""
    job = cluster.submit(config, output)
    seen = until(job, output, whole // 3)
    cluster.lose(HEAD)
    first = job.wait(300)
    cluster.end()
    before = sum(1 for _ in output.rglob("*.facts.json"))
    again = cluster.submit(config, output)
    return {"exit_codes": [first, again.wait(600)], "shards_kept": before, "workers_seen": dict(seen)}


def service_lost(cluster: Cluster, config: Path, output: Path, whole: int) -> dict[str, Any]:
    """Ray's control service on the head dies, the driver does not: Ray ends it after a minute, in words of its own."""
    job = cluster.submit(config, output)
    until(job, output, whole // 3)
    signalled([p for p in processes(HEAD) if psutil.Process(p).name() == "gcs_server"], signal.SIGKILL)
    first = job.wait(600)
    said = "Failed to connect to GCS within 60 seconds" in output.with_suffix(".log").read_text()
    cluster.end()
    again = cluster.submit(config, output)
    return {"exit_codes": [first, again.wait(600)], "ray_said_so": said}


CASES: dict[str, Callable[[Cluster, Path, Path, int], dict[str, Any]]] = {
    "undisturbed": undisturbed,
    "a machine lost": machine_lost,
    "a machine cut off": machine_cut_off,
    "the head lost, the job submitted again": head_lost,
    "Ray's control service lost, the job submitted again": service_lost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds that an engine takes for a text")
    parser.add_argument("--only", nargs="+", help="begin of the names of the cases to run")
    args = parser.parse_args()
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "work") as name:
        folder = Path(name)
        config = tiny_config(folder, rows=args.rows, delay=args.delay)
        finish(config, folder / "alone")
        whole = sum(1 for _ in (folder / "alone").rglob("*.facts.json"))
        cluster = Cluster(folder)
        for number, (title, case) in enumerate(CASES.items()):
            if args.only and not title.startswith(tuple(args.only)):
                continue
            output = folder / f"case{number}"
            begin = time.monotonic()
            with machines(NODES):
                try:
                    facts[title] = case(cluster, config, output, whole)
                finally:
                    cluster.end()
            facts[title] |= {"seconds": round(time.monotonic() - begin, 1)}
            same = final_bytes(output) == final_bytes(folder / "alone") and counts(output) == counts(folder / "alone")
            facts[title] |= {"same_bytes": same}
            print(title, facts[title], flush=True)
            if not same:
                print(output.with_suffix(".log").read_text()[-6000:], flush=True)
    result = {"date": datetime.now(UTC).date().isoformat(), **provenance(), "against": "one process, one machine"}
    result |= {"shards": whole, "runs": facts}
    if args.json:
        write_json(args.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
