"""``python -m sdrrl_nemo`` is the command ``sdrrl``, where the code is on PYTHONPATH and not installed."""

from __future__ import annotations

import sys

from sdrrl_nemo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
