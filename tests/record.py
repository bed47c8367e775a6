"""Write the outcome of a test run as JSON, for grids too long for every run; their results are in docs/results.

pytest tests/unit/kernels -m slow --junitxml work/slow.xml
python tests/record.py work/slow.xml docs/results/kernels_grid.json --command 'pytest tests/unit/kernels -m slow'
"""

from __future__ import annotations

import argparse
import platform
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path

from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import provenance


def main() -> None:
    """Count outcomes and seconds by test function."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("junit", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--command", required=True, help="what was run, as anyone can run it again")
    args = parser.parse_args()
    tests: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    suite = next(ET.parse(args.junit).getroot().iter("testsuite"))
    for case in suite.iter("testcase"):
        name = f"{case.get('classname')}::{str(case.get('name')).split('[')[0]}"
        outcome = next((c.tag for c in case if c.tag in ("failure", "error", "skipped")), "passed")
        tests[name][outcome] += 1
        seconds[name] += float(case.get("time", 0))
    write_json(
        args.output,
        {
            "command": args.command,
            "date": suite.get("timestamp"),
            "machine": f"{platform.machine()}, {platform.processor() or 'CPU only'}",
            "provenance": {k: v for k, v in provenance().items() if k != "command"},
            "tests": {n: {**tests[n], "seconds": round(seconds[n], 1)} for n in sorted(tests)},
        },
    )


if __name__ == "__main__":
    main()
