"""A dozen lines over transformers and torch, on the recipe's packed micro-batches: the peer, and the CPU's reference.

    python tools/gpu/plain_loop.py PLAN.json OUT.json

In bf16 the parameters stay fp32 under torch.autocast, as transformers' own Trainer has them. Packed samples are told
apart by their positions, which transformers understands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.fileio import read_json, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.compat.private import attention_kind
from tools.bench.training_speed import BETAS, CLIP, EPS
from tools.gpu.shapes import shape


@dataclass(frozen=True)
class Plan:
    """One run of the loop. ``device``: cpu or cuda; ``steps`` 0: those of the shape."""

    shape: str
    model: str
    data: str
    device: str
    precision: str
    micro_batch_size: int
    steps: int = 0


def batches(plan: Plan) -> Any:
    """The recipe's micro-batches of the shape's run."""
    from sdrrl_nemo.data.packing.packed import PackedDataset
    from sdrrl_nemo.train.batches import MicroBatches, Schedule
    from sdrrl_nemo.train.config import RunConfig

    data = PackedDataset(plan.data)
    schedule = Schedule(len(data), shape(plan.shape).global_batch_size, RunConfig().seed)
    return MicroBatches(data, packed=True, micro_batch_size=plan.micro_batch_size, reduction="step", schedule=schedule)


def model_of(plan: Plan) -> Any:
    """The model with fp32 parameters and the fastest attention that transformers finds here."""
    import importlib.util

    import torch
    from transformers import AutoModelForCausalLM

    flash = plan.device == "cuda" and plan.precision == "bf16" and importlib.util.find_spec("flash_attn") is not None
    attention = "flash_attention_2" if flash else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(plan.model, dtype=torch.float32, attn_implementation=attention)
    return model.to(plan.device).train()


def loop(plan: Plan) -> dict[str, Any]:
    """Losses, gradient norms and seconds of every step, question and answer tokens of every step, peak memory."""
    import torch

    from sdrrl_nemo.train.batches import MicroBatchStream

    on_gpu, s, source = plan.device == "cuda", shape(plan.shape), batches(plan)
    steps, model = plan.steps or s.steps, model_of(plan)
    adam = torch.optim.AdamW(model.parameters(), lr=s.lr, betas=BETAS, eps=EPS, weight_decay=0.0, fused=on_gpu)
    stream = iter(MicroBatchStream(source, 0, 0, 1))
    out: dict[str, Any] = {"losses": [], "grad_norms": [], "seconds": []}
    for step in progress(range(steps), "plain loop"):
        begun, total = time.perf_counter(), torch.zeros((), device=plan.device)
        for _ in range(s.global_batch_size // plan.micro_batch_size):
            total += micro_batch(model, next(stream), plan)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if step + 1 < steps or steps > 1:  # a run of one step needs no update, and a large model has no room for one
            adam.step()
        adam.zero_grad()
        out["losses"].append(float(total))  # waits for the device
        out["grad_norms"].append(float(norm))
        out["seconds"].append(time.perf_counter() - begun)
    out["tokens"] = [source.useful_tokens(step) for step in range(steps)]
    out["attention"] = attention_kind(model)
    out["peak_bytes"] = torch.cuda.max_memory_allocated() if on_gpu else None
    return out


def micro_batch(model: Any, batch: dict[str, Any], plan: Plan) -> Any:
    """Loss of one micro-batch; its gradients are added to those of the parameters."""
    import torch

    b = {key: value.to(plan.device, non_blocking=True) for key, value in batch.items()}
    with torch.autocast(plan.device, torch.bfloat16, enabled=plan.precision == "bf16"):
        logits = model(input_ids=b["tokens"], position_ids=b["position_ids"], use_cache=False).logits
    each = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), b["labels"].flatten(), reduction="none")
    loss = (each * b["weights"].flatten()).sum()
    loss.backward()
    return loss.detach()


def main(argv: Sequence[str]) -> None:
    """Run the plan of a file, write what came of it."""
    plan = Plan(**read_json(argv[0]))
    write_json(Path(argv[1]), {"plan": asdict(plan), **loop(plan)})


if __name__ == "__main__":
    sys.exit(run(main))
