#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Say what is installed and what the machine has, what will run with it and what will not, and what to do.

    tools/doctor.py [--json]

Takes half a minute: it imports what a run imports, in processes of their own. The text names no person, machine or
folder and goes into bug reports as it is. Exit code 0: preprocessing, training and export can run; else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from sdrrl_nemo.common.cli import run


def main(argv: Sequence[str]) -> int:
    """Look, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="everything as JSON, in place of the text")
    args = parser.parse_args(argv)

    from sdrrl_nemo.doctor.examine import examine
    from sdrrl_nemo.doctor.text import as_json, as_text
    from sdrrl_nemo.doctor.verdicts import exit_code, verdicts

    if sys.stderr.isatty():
        print("looking; importing everything takes half a minute ...", file=sys.stderr, flush=True)
    facts = examine()
    found = verdicts(facts)
    code = exit_code(found)
    print(json.dumps(as_json(facts, found, code), indent=2, ensure_ascii=False) if args.json else as_text(facts, found))
    return code


if __name__ == "__main__":
    sys.exit(run(main))
