"""Export one checkpoint after another in one process: export_worker.py CHECKPOINT BASE OUTPUT [CHECKPOINT BASE ...].

Every tensor of the checkpoint, whole, goes to OUTPUT.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError


def dump(checkpoint: Path, file: Path) -> None:
    """All tensors by their names in the checkpoint, the optimiser's too."""
    import torch
    from megatron.core import dist_checkpointing

    weights = str(checkpoint / "weights")
    wanted = dist_checkpointing.load_tensors_metadata(weights)
    loaded = dist_checkpointing.load(wanted, weights, validate_access_integrity=False)
    torch.save({k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}, file)


def main() -> None:
    from sdrrl_nemo.compat.start import prepare

    prepare()
    from megatron.core import parallel_state

    from sdrrl_nemo.model.export import export_checkpoint

    args = [Path(a) for a in sys.argv[1:]]
    for checkpoint, base, output in zip(args[::3], args[1::3], args[2::3], strict=True):
        try:
            print(output.name, export_checkpoint(checkpoint, base, output))
        except SdrrlError as e:
            print(output.name, "error:", e)
        dump(checkpoint, output.with_suffix(".pt"))
        if parallel_state.model_parallel_is_initialized():
            parallel_state.destroy_model_parallel()


if __name__ == "__main__":
    main()
