#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Write a Hugging Face model as a Megatron distributed checkpoint (fp32), at any tensor/pipeline parallel size.

    torchrun --nproc-per-node 2 tools/import_hf.py --model HF_FOLDER --output CHECKPOINT --tp 2 --pad-heads-to 2

Training does not need this (the recipe reads the HF folder itself); other Megatron tools do.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.check import start_check


def main(argv: Sequence[str]) -> None:
    """HF tensors -> this rank's shards -> distributed checkpoint, under its final name only when whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tp", type=int, default=1, help="tensor_model_parallel_size")
    parser.add_argument("--pp", type=int, default=1, help="pipeline_model_parallel_size")
    parser.add_argument("--pad-heads-to", type=int, default=1, help="pad key/value heads with zero heads")
    args = parser.parse_args(argv)
    if args.output.exists():
        raise SdrrlError(f"{args.output}: exists already; remove it or choose another --output")
    start_check("export")

    from sdrrl_nemo.compat.start import prepare

    prepare(gpus=False)
    import torch.distributed as dist
    from megatron.core import parallel_state

    from sdrrl_nemo.model import standalone
    from sdrrl_nemo.model.hf_bridge import load_hf_weights
    from sdrrl_nemo.model.provider import gpt_config, read_hf_config

    hf = read_hf_config(args.model)
    config = gpt_config(
        hf, seq_length=hf.max_position_embeddings, tp=args.tp, pp=args.pp, pad_heads_to=args.pad_heads_to
    )
    standalone.init_parallel(args.tp, args.pp)
    model = standalone.build(config, args.tp, args.pp)
    load_hf_weights(model, args.model, config, parallel_state.get_tensor_model_parallel_rank(), args.tp)
    temporary = args.output.with_name(f".{args.output.name}.unfinished")
    if dist.get_rank() == 0 and temporary.exists():
        shutil.rmtree(temporary)  # of an import that was killed: its files must not end in this one
    dist.barrier()
    standalone.save_weights(model, temporary)
    if dist.get_rank() == 0:
        temporary.rename(args.output)
        print(f"{args.output}: Megatron checkpoint of {args.model} written")
    dist.barrier()


if __name__ == "__main__":
    sys.exit(run(main))
