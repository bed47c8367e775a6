"""Export one checkpoint after another in one process: export_worker.py CHECKPOINT BASE OUTPUT [CHECKPOINT BASE ...]."""

from __future__ import annotations

import sys
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError


def main() -> None:
    from sdrrl_nemo.train.cpu import adapt_to_cpu

    adapt_to_cpu()
    from megatron.core import parallel_state

    from sdrrl_nemo.model.export import export_checkpoint

    args = [Path(a) for a in sys.argv[1:]]
    for checkpoint, base, output in zip(args[::3], args[1::3], args[2::3], strict=True):
        try:
            print(output.name, export_checkpoint(checkpoint, base, output))
        except SdrrlError as e:
            print(output.name, "error:", e)
        if parallel_state.model_parallel_is_initialized():
            parallel_state.destroy_model_parallel()


if __name__ == "__main__":
    main()
