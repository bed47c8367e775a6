"""Two machines for real, as far as one can be two: network namespaces with addresses of their own, joined by a switch.

    python -m tests.distributed.two_machines --json docs/results/two_machines.json     (root, iproute2)

configs/clusters/torchrun_node.sh runs in both, as on two nodes of a cluster; nothing but a switch (a bridge) and
the file system connects them. Three runs of the same settings: two processes on one machine; both nodes undisturbed;
both nodes, of which one is lost with all its processes in the middle and started again. The rows of the metrics and the
tensors of the last checkpoint must have the same bits.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance
from tests.distributed.chaos import Bench, fingerprint_of
from tests.launch import ROOT, descendants, environment, signalled
from tests.namespaces import CABLE, machines
from tests.runs import metric_rows, steps_done

NODES = {"sdrrl-a": "10.77.0.1", "sdrrl-b": "10.77.0.2"}
PORT = 29500
KEYS = {"optim.use_distributed_optimizer": "true", "trainer.max_steps": 24, "trainer.save_every": 4}


def start(node: str, bench: Bench, run: Path) -> subprocess.Popen[bytes]:
    """The node's part of the run, inside its namespace."""
    env = environment() | {"NNODES": "2", "GPUS": "1", "HEAD": NODES["sdrrl-a"], "NODE": NODES[node], "PORT": str(PORT)}
    env |= {"TORCHRUN": str(Path(sys.executable).with_name("torchrun")), "JOIN_SECONDS": "180", "MAX_RESTARTS": "3"}
    env |= {"GLOO_SOCKET_IFNAME": CABLE, "SAVE_SECONDS": "60"}
    keys = [f"{k}={v}" for k, v in {"run_dir": run, **KEYS}.items()]
    command = ["configs/clusters/torchrun_node.sh", "--config", str(bench.config), *keys]
    with open(run.with_suffix(f".{node}.log"), "ab") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", node, "bash", *command], cwd=ROOT, env=env, stdout=log, stderr=log
        )


def logs(run: Path) -> str:
    """The end of what both nodes have said."""
    return "\n".join(p.read_text(errors="replace")[-3000:] for p in sorted(run.parent.glob(f"{run.name}.*.log")))


def until(run: Path, steps: int, nodes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for so many logged steps."""
    deadline = time.monotonic() + 600
    while steps_done(run) < steps:
        if time.monotonic() > deadline or all(p.poll() is not None for p in nodes):
            raise AssertionError(logs(run))
        time.sleep(0.01)


def together(bench: Bench, run: Path) -> dict[str, Any]:
    """Both nodes, undisturbed."""
    nodes = [start(node, bench, run) for node in NODES]
    codes = [p.wait(600) for p in nodes]
    if any(codes):
        raise AssertionError(logs(run))
    return {"exit_codes": codes}


def one_lost(bench: Bench, run: Path) -> dict[str, Any]:
    """The second node loses all its processes at once and is started again, by the same command, a little later."""
    a, b = (start(node, bench, run) for node in NODES)
    until(run, 6, [a, b])
    lost_after = steps_done(run)
    os.kill(b.pid, signal.SIGSTOP)  # no child of it gets away meanwhile
    signalled([b.pid, *descendants(b.pid)], signal.SIGKILL)
    b.wait()
    time.sleep(5)
    again = start("sdrrl-b", bench, run)
    codes = [a.wait(600), again.wait(600)]
    if any(codes):
        raise AssertionError(logs(run))
    return {"lost_after_step": lost_after, "exit_codes": codes}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--base", type=Path, default=ROOT / "work/models/SmolLM2-135M-Instruct")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, args.base)
        keys = [f"{k}={v}" for k, v in {"run_dir": folder / "one", **KEYS}.items()]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["recipes/sdrrl_pretrain.py", "--config", str(bench.config), *keys]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, capture_output=True)
        facts: dict[str, Any] = {}
        with machines(NODES):
            facts["two nodes"] = together(bench, folder / "two")
            facts["one node lost and back"] = one_lost(bench, folder / "lost")
        expected, digest = metric_rows(folder / "one"), fingerprint_of(folder / "one")
        for title, run in (("two nodes", "two"), ("one node lost and back", "lost")):
            facts[title] |= {
                "steps": steps_done(folder / run),
                "same_rows": metric_rows(folder / run) == expected,
                "same_checkpoint": fingerprint_of(folder / run) == digest,
            }
    result = {"date": datetime.now(UTC).date().isoformat(), **provenance(), "against": "two processes, one machine"}
    result |= {"runs": facts}
    if args.json:
        write_json(args.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
