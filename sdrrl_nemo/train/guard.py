"""Steps that must not be taken: losses or gradients that are not finite, and gradient norms that jump.

The verdict falls after the backward pass, when the gradients of all ranks are summed and their norm is known, and
before the optimiser: later, one NaN would already be in every weight. The update is skipped on every rank alike (loss
vector and norm are equal everywhere), step numbers and learning rate go on as if it had been taken, and the
micro-batches that made the step are written to ``skipped.jsonl`` with the keys of their samples.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from torch import Tensor

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.megatron import replace_prepare_grads
from sdrrl_nemo.train.config import SpikeSettings

SKIPPED_FILE = "skipped.jsonl"
Keys = Callable[[int, int, int], list[str]]
"""(step, data-parallel rank, micro-batch) -> keys of the samples."""


def _json(value: float) -> float | str:
    """``value`` as JSON can hold it: JSON has no NaN and no infinity, so those become words."""
    return value if math.isfinite(value) else str(value)


class StepGuard:
    """Judges each step between its backward pass and the optimiser.

    Args:
        settings: thresholds, and for how many steps in a row they may be broken.
        run_dir: where ``skipped.jsonl`` is written by rank 0.
        keys_of: names the samples of a micro-batch.
        history: norms of the steps taken before a resume, oldest first.
    """

    def __init__(self, settings: SpikeSettings, run_dir: str, keys_of: Keys, history: Sequence[float] = ()) -> None:
        self.settings = settings
        self.path = Path(run_dir) / SKIPPED_FILE
        self.keys_of = keys_of
        self.norms: deque[float] = deque(history, maxlen=settings.window)
        self.in_a_row = 0

    def reason(self, loss: float, norm: float) -> str | None:
        """Why a step with this loss and gradient norm must be skipped; None: take it."""
        if not math.isfinite(loss):
            return f"loss is {loss}"
        if not math.isfinite(norm):
            return f"gradient norm is {norm}"
        s = self.settings
        if s.factor > 0 and len(self.norms) >= s.warmup:
            # The median, because a single spike among the norms would lift a mean and hide the next one.
            usual = statistics.median(self.norms)
            if norm > s.factor * usual:
                return (
                    f"gradient norm {norm:.4g} is over {s.factor:g} x the median {usual:.4g} of {len(self.norms)} steps"
                )
        return None

    def judge(self, step: int, loss: float, norm: float, micro_losses: Tensor | None) -> bool:
        """True when ``step`` (from 0) must be skipped; every rank calls this with the same loss and norm.

        Args:
            micro_losses: float64 [micro-batches], this rank's; None where the loss is not computed.

        SdrrlError when ``max_in_a_row`` steps in a row had to be skipped.
        """
        reason = self.reason(loss, norm)
        if reason is None:
            # Norms of skipped steps are not remembered: they would make the next spike look usual.
            self.norms.append(norm)
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self._log(step, reason, micro_losses)
        if self.in_a_row >= self.settings.max_in_a_row:
            raise SdrrlError(
                f"step {step + 1}: {reason}; {self.in_a_row} steps in a row were skipped, so training has diverged: "
                f"see {self.path} for the samples, lower optim.lr, and resume from an earlier checkpoint"
            )
        return True

    def _log(self, step: int, reason: str, micro_losses: Tensor | None) -> None:
        """Collect what each rank knows of its micro-batches; rank 0 writes one line.

        Micro-batches whose loss is not finite are named; where all are finite, all of them, the largest loss first.
        """
        mine = None if micro_losses is None else micro_losses.tolist()
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, (parallel_state.get_data_parallel_rank(), mine))
        if torch.distributed.get_rank() != 0:
            return
        losses: dict[tuple[int, int], float] = {}
        for dp_rank, values in parts:
            for i, value in enumerate(values or []):
                losses[dp_rank, i] = losses.get((dp_rank, i), 0.0) + value / self._copies(parts, dp_rank)
        wrong = [k for k, v in losses.items() if not math.isfinite(v)] or sorted(losses)
        line = {
            "step": step + 1,
            "reason": reason,
            "micro_batches": [
                {
                    "data_parallel_rank": d,
                    "micro_batch": i,
                    "loss": _json(losses[d, i]),
                    "samples": self.keys_of(step, d, i),
                }
                for d, i in sorted(wrong, key=lambda k: (-losses[k] if math.isfinite(losses[k]) else -math.inf, k))
            ],
        }
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")
            f.flush()
            os.fsync(f.fileno())

    @staticmethod
    def _copies(parts: Sequence[Any], dp_rank: int) -> int:
        """How many ranks report the same loss of a micro-batch; tensor-parallel ranks all do.

        Context-parallel ranks report parts of it, which add up, and so do not count as copies.
        """
        holders = sum(1 for rank, values in parts if rank == dp_rank and values)
        return max(1, holders // parallel_state.get_context_parallel_world_size())

    def attach(self, mcore_optimizer: Any, verdict: Callable[[float], bool]) -> None:
        """Let ``verdict(gradient norm)`` stop megatron-core's optimiser after its gradients are ready."""
        # ``prepare_grads`` is mcore's own place to stop: it returns True when fp16 gradients overflow, and ``step``
        # then leaves weights and moments alone.
        prepare = mcore_optimizer.prepare_grads

        def guarded() -> bool:
            return bool(prepare()) or verdict(float(mcore_optimizer.get_grad_norm()))

        replace_prepare_grads(mcore_optimizer, guarded)
