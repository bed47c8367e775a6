"""Kill a preprocessing run, and its workers, at random moments; it must end with the bytes of an undisturbed one.

python tests/end_to_end/data_chaos.py --kills 20 --backend local --workers 2
python tests/end_to_end/data_chaos.py --kills 20 --backend ray --workers 2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from sdrrl_nemo.common.fileio import write_json

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.unit.data.tiny_run import tiny_config  # noqa: E402


def start(config: Path, output: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """The tool as a user starts it."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(ROOT / "tools/preprocess_sdrrl.py"), "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    log = open(output.with_suffix(".log"), "ab")  # noqa: SIM115 - the child writes to it
    with log:
        return subprocess.Popen(
            [*command, f"output_dir={output}", *overrides], stdout=log, stderr=log, env=environment, cwd=config.parent
        )


def finish(config: Path, output: Path, *overrides: str) -> None:
    """Run to the end; AssertionError with the log when it fails."""
    code = start(config, output, *overrides).wait(timeout=600)
    assert code == 0, output.with_suffix(".log").read_text()[-3000:]


def final_bytes(output: Path) -> dict[str, bytes]:
    """All final files but stats.json, whose seconds differ."""
    return {
        str(p.relative_to(output)): p.read_bytes()
        for p in sorted(output.rglob("*"))
        if p.is_file() and "stages" not in p.relative_to(output).parts and p.name not in ("stats.json", ".lock")
    }


def counts(output: Path) -> dict[str, object]:
    """stats.json without its seconds."""
    stats: dict[str, object] = json.loads((output / "stats.json").read_text())
    for stage in stats["stages"]:  # type: ignore[attr-defined]
        del stage["seconds"]
    return stats


def workers_of(driver: Any) -> list[psutil.Process]:
    """Worker processes of a run, whichever backend started them."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(driver.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                line = " ".join(child.cmdline())
                if "multiprocessing.spawn" in line or line.startswith("ray::QuietWorker"):
                    found.append(child)
    return found


def _files(output: Path) -> int:
    return sum(1 for _ in output.rglob("*.facts.json"))


def _wait_for(process: Any, output: Path, goal: int, rng: random.Random) -> bool:
    """Until ``goal`` shards are finished and a little longer; False when the run ended first."""
    while process.poll() is None and _files(output) < goal:
        time.sleep(0.005)
    time.sleep(rng.random() * 0.2)
    return process.poll() is None


def disturb(
    config: Path, output: Path, overrides: list[str], kills: int, whole: int, seed: int, start: Callable[..., Any]
) -> Counter[str]:
    """Kill the driver ``kills`` times, spread over the run's ``whole`` shards, and a worker before each of them."""
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    for moment in sorted(rng.randrange(0, whole) for _ in range(kills)):
        process = start(config, output, *overrides)
        if _wait_for(process, output, max(_files(output), moment - 2), rng):
            for worker in rng.sample(found := workers_of(process), min(1, len(found))):
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
                    done["worker"] += 1
        if _wait_for(process, output, moment, rng):
            process.send_signal(signal.SIGKILL)
            done["driver"] += 1
        process.wait()
    return done


def check(
    folder: Path,
    backend: str,
    workers: int,
    kills: int,
    seed: int = 1,
    rows: int = 50,
    finish: Callable[..., None] = finish,
    start: Callable[..., Any] = start,
) -> Counter[str]:
    """Both runs and the comparison; returns how many were killed. ``finish``: how a run that nobody kills is run.

    ``start``: how one is started that may be killed.
    """
    config = tiny_config(folder, rows=rows, delay=0.004)
    finish(config, folder / "whole")
    overrides = [f"execution.backend={backend}", f"execution.workers={workers}", "execution.retries=5"]
    disturbed = folder / f"disturbed-{backend}-{workers}"
    done = disturb(config, disturbed, overrides, kills, _files(folder / "whole"), seed, start)
    finish(config, disturbed, *overrides)
    assert final_bytes(disturbed) == final_bytes(folder / "whole")
    assert counts(disturbed) == counts(folder / "whole")
    keys = [json.loads(line)["key"] for line in (disturbed / "transfer_set.jsonl").read_text().splitlines()]
    assert len(set(keys)) == len(keys) > 0
    assert not list(disturbed.rglob(".*.tmp"))
    return done


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--backend", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append the outcome to this file's list")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = check(Path(folder), a.backend, a.workers, a.kills, a.seed, a.rows)
    print(f"killed {done['driver']} drivers and {done['worker']} workers; nothing lost, nothing twice, same bytes")
    if a.json:
        before = json.loads(a.json.read_text(encoding="utf-8")) if a.json.is_file() else []
        options = {"backend": a.backend, "workers": a.workers, "kills": a.kills, "rows": a.rows, "seed": a.seed}
        killed = {"killed_drivers": done["driver"], "killed_workers": done["worker"]}
        outcome = {"rows_lost": 0, "rows_twice": 0, "bytes_equal": True}  # anything else is an AssertionError above
        when = {"command": "python tests/end_to_end/data_chaos.py", "date": time.strftime("%Y-%m-%d", time.gmtime())}
        write_json(a.json, [*before, {**when, **options, **killed, **outcome}])


if __name__ == "__main__":
    main()
