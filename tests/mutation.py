"""A reproducible mutation sample: small faults put into the code, one at a time; which of them do unit tests find?

    python -m pip install --target /tmp/mutation-tools cosmic-ray==8.7.0
    python -m tests.mutation --tools /tmp/mutation-tools --output docs/results/mutation_after.json
    python -m tests.mutation --tools /tmp/mutation-tools --tests-from 1a2b3c4 --output docs/results/mutation_before.json

Run from the checkout, with the checkout and ``kernels`` on PYTHONPATH. Nothing in the checkout is changed: every worker
has a copy of the tracked files. ``--tests-from`` takes ``tests/`` of another commit. A mutant's tests are those of its
file (tests/mutating/groups.py) that run its statement, the quickest first, until ``--budget`` CPU seconds of them are
used up; they run in a fork of a process that has imported torch, pytest and the rest. Mutants that no test could tell
from the code are listed by hand, each with its reason, in tests/data/equivalent_mutants.json. docs/testing.md has the
scores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.mutating.bench import ROOT, Bench, copy_of_tree
from tests.mutating.groups import GROUPS

EQUIVALENT = ROOT / "tests/data/equivalent_mutants.json"


def arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tools", help="folder with cosmic-ray, where the environment has none")
    parser.add_argument("--group", choices=GROUPS, default="first", help="the files: see tests/mutating/groups.py")
    parser.add_argument("--only", default="", help="only files whose path has this in it")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--count", type=int, default=307, help="mutants")
    parser.add_argument("--budget", type=float, default=10.0, help="CPU seconds of tests for one mutant")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, help="folder for what is found out; another run with it asks only for the rest"
    )
    parser.add_argument("--tests-from", metavar="COMMIT", help="take tests/ from this commit")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.tools:
        sys.path.append(args.tools)  # last: the environment's own versions of shared packages stay
    from tests.mutating.mutants import draw

    started = time.time()
    groups = GROUPS[args.group]
    files = {f: g for g in groups for f in g.files_in(ROOT) if args.only in f}
    mutants = draw(ROOT, sorted(files), args.seed, args.count)
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        trees = [copy_of_tree(Path(temporary) / str(i), args.tests_from) for i in range(args.workers)]
        bench = Bench(trees, args.keep, args.budget)
        outcomes = bench.run({g: [m for m in mutants if files[m.path] is g] for g in groups})
    report = summary(args, mutants, outcomes)
    report["minutes"] = round((time.time() - started) / 60, 1)
    report["tests_that_failed_without_a_mutant"] = bench.failed
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({k: report[k] for k in ("mutants", "score", "minutes")}))


def summary(args: argparse.Namespace, mutants: list[Any], outcomes: dict[Any, str]) -> dict[str, Any]:
    """Scores; equivalent mutants are known by file and change, wherever the line is now."""
    listed = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.is_file() else []
    equivalent = {(e["file"], e["before"], e["after"]): e["reason"] for e in listed}
    by_file: dict[str, Counter[str]] = {}
    survivors = []
    for m in mutants:
        outcome = outcomes[m]
        if outcome == "survived" and (m.path, *m.change) in equivalent:
            outcome = "equivalent"
        by_file.setdefault(m.path, Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(
                {"where": f"{m.path}:{m.line}", "operator": m.operator, "before": m.change[0], "after": m.change[1]}
            )
    total: Counter[str] = sum(by_file.values(), Counter())
    found = total["killed"] + total["timeout"]
    real = len(mutants) - total["equivalent"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {
        "command": "python -m " + " ".join(["tests.mutation", *_plain(sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": commit.strip(),
        "tests_from": args.tests_from or commit.strip(),
        "machine": {"cores": os.cpu_count(), "python": sys.version.split()[0]},
        "mutants": {"drawn": len(mutants), **{k: total[k] for k in ("killed", "timeout", "survived", "equivalent")}},
        "score": round(found / real, 4) if real else None,
        "files": {path: dict(counts) for path, counts in sorted(by_file.items())},
        "survivors": survivors,
    }


def _plain(words: list[str]) -> list[str]:
    """The command without folders of this machine."""
    named = {"--tools": "TOOLS", "--keep": "KEPT"}
    return [named.get(words[i - 1], w) if i else w for i, w in enumerate(words)]


if __name__ == "__main__":
    main()
