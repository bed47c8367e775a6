"""Calls entry points one after another in one process (importing NeMo once) and prints what each said and returned.

python tests/end_to_end/cli_worker.py CASES.json     # [[module, [argument, ...], {"ENV": "value"}], ...]
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import traceback

from sdrrl_nemo.common.cli import run


def call(module: str, argv: list[str], env: dict[str, str]) -> dict[str, object]:
    """Exit code and stderr of one entry point."""
    before = dict(os.environ)
    os.environ.update(env)
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            code = run(importlib.import_module(module).main, argv)
    except SystemExit as e:  # argparse
        code = int(e.code or 0)
    except Exception:
        code = 1
        err.write(traceback.format_exc())
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {"code": code, "stderr": err.getvalue()}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        cases = json.load(f)
    results = [call(*case) for case in cases]
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        json.dump(results, f)
