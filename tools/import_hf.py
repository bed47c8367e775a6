#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Write a Hugging Face model as a Megatron distributed checkpoint (fp32), at any tensor/pipeline parallel size.

    torchrun --nproc-per-node 2 tools/import_hf.py --model HF_FOLDER --output CHECKPOINT --tp 2 --pad-heads-to 2

Training does not need this (the recipe reads the HF folder itself); other Megatron tools do. The first rank of the last
pipeline stage compares logits with those of transformers, and needs memory for the model in fp32 beside its own part.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.check import start_check

TOLERANCE = 1e-3
"""Largest accepted difference of an fp32 logit between Megatron and transformers."""
TOKENS = 24


def largest_difference(model: Any, folder: Path, rows: int) -> float:
    """Of a logit, between this model in its layout and transformers' own, which loads the folder itself; every rank
    calls this and learns it.

    ``rows``: of the embeddings, from which the ids are taken evenly.
    """
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state

    from sdrrl_nemo.model.published.transformers_reference import reference_logits
    from sdrrl_nemo.model.standalone import logits_across_ranks

    device = torch.cuda.current_device()
    ids = torch.linspace(0, rows - 1, TOKENS).long()[None]
    ours = logits_across_ranks(model, ids.to(device))
    found = torch.zeros(1, device=device)
    if ours is not None and parallel_state.get_tensor_model_parallel_rank() == 0:
        found += (ours[..., :rows].cpu() - reference_logits(folder, ids)).abs().max().nan_to_num(nan=torch.inf)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return float(found)


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
    from sdrrl_nemo.model.published.transformers_reference import check_rotary
    from sdrrl_nemo.model.published.weight_files import check_weights

    hf = read_hf_config(args.model)
    check_weights(args.model)
    check_rotary(args.model, hf)
    config = gpt_config(
        hf, seq_length=hf.max_position_embeddings, tp=args.tp, pp=args.pp, pad_heads_to=args.pad_heads_to
    )
    standalone.init_parallel(args.tp, args.pp)
    model = standalone.build(config, args.tp, args.pp)
    load_hf_weights(model, args.model, config, parallel_state.get_tensor_model_parallel_rank(), args.tp)
    difference = largest_difference(model, args.model, hf.vocab_size)
    if not difference <= TOLERANCE:  # nor is NaN
        raise SdrrlError(f"{args.model}: logits differ by {difference:.2e} from those of transformers")
    temporary = args.output.with_name(f".{args.output.name}.unfinished")
    if dist.get_rank() == 0 and temporary.exists():
        shutil.rmtree(temporary)  # of an import that was killed: its files must not end in this one
    dist.barrier()
    standalone.save_weights(model, temporary)
    if dist.get_rank() == 0:
        temporary.rename(args.output)
        print(f"{args.output}: Megatron checkpoint of {args.model} written")
        print(f"max abs diff of logits, transformers vs Megatron: {difference:.3e} over {TOKENS} tokens")
    dist.barrier()


if __name__ == "__main__":
    sys.exit(run(main))
