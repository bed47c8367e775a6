"""Every layout of a number of GPUs that the recipe would accept: which fit, how fast each would be, which is best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sdrrl_nemo.common.config import override
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.precision import AUTO
from sdrrl_nemo.cost.flops import ModelShape, training_flops
from sdrrl_nemo.cost.gpus import Gpu
from sdrrl_nemo.plan.checkpoint_bytes import (
    checkpoint_bytes,
    loaded_bytes,
    read_bytes,
    read_host_bytes,
    start_host_bytes,
    start_read_bytes,
)
from sdrrl_nemo.plan.layout import Build, Layout, adapter_parameters, misfit, padded
from sdrrl_nemo.plan.memory import Memory, fullest
from sdrrl_nemo.plan.speed import GPUS_PER_NODE, Step, Work, step_seconds
from sdrrl_nemo.plan.workload import Workload
from sdrrl_nemo.train.config import RunConfig, check
from sdrrl_nemo.train.megatron_options.option_checks import check_option_sizes
from sdrrl_nemo.train.megatron_options.option_settings import NONE

MAX_CP = 8
ALIKE = 0.01
"""Speeds closer than this are alike: less than the predictions' error. The one that splits less goes first."""
RECOMPUTE_ALL = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
MAX_GPUS = 4096
"""How far ``what_would_fit`` looks."""


@dataclass(frozen=True)
class Plan:
    """One layout of a run, predicted."""

    layout: Layout
    stage: int
    """Pipeline stage of the fullest rank, which ``memory`` is of."""
    memory: Memory
    step: Step
    fits: bool
    tokens_per_second: float
    """Question and answer tokens of all GPUs."""
    hours: float
    """Of the whole run; 0 where its length is unknown."""
    mfu: float
    """Useful operations over the GPUs' peak."""


@dataclass(frozen=True)
class Result:
    """What the planner says of a number of GPUs."""

    plans: list[Plan]
    """Layouts that fit, fastest first; never empty."""
    configured: Plan | None
    """The configuration's own layout, which may not fit."""
    refused: str
    """Why the recipe would not start with it; empty where it would."""


@dataclass(frozen=True)
class Planner:
    """What stays the same while layouts are compared. ``shape``: true sizes of the model."""

    config: RunConfig
    shape: ModelShape
    gpu: Gpu
    workload: Workload
    fused: bool = True
    """Transformer Engine's layers."""

    def build(self) -> Build:
        """How the run's configuration builds layers and optimiser on a GPU."""
        c, m = self.config, self.config.megatron
        adapters = adapter_parameters(self.shape, c.lora.rank, c.lora.target_modules) if c.lora.rank else 0
        return Build(
            precision="bf16" if c.trainer.precision == AUTO else c.trainer.precision,  # GPUs have it
            fused=self.fused,
            packed=c.data.packed,
            distributed_optimizer=c.optim.use_distributed_optimizer,
            fused_linear=c.loss.kernel == "fused_linear",
            chunk_mib=c.loss.chunk_mib,
            adapters=adapters,
            adapter_rank=c.lora.rank,
            recompute=m.recompute_granularity,
            recompute_method=m.recompute_method,
            recompute_layers=m.recompute_num_layers,
            recompute_modules=tuple(m.recompute_modules),
            fused_accumulation=m.gradient_accumulation_fusion,
            overlap_grad_reduce=m.overlap_grad_reduce,
            overlap_param_gather=m.overlap_param_gather,
            tp_comm_overlap=m.tp_comm_overlap,
            fp8=m.fp8 != NONE,
        )

    def layout(self, gpus: int) -> Layout:
        """The configuration's own layout on ``gpus`` GPUs; SdrrlError where the recipe would refuse it."""
        t = self.config.trainer
        dp = check(self.config, gpus)
        found = Layout(
            tp=t.tp,
            pp=t.pp,
            vpp=t.vpp,
            cp=t.cp,
            dp=dp,
            sequence_parallel=t.sequence_parallel,
            micro_batch_size=t.micro_batch_size,
            accumulation=t.global_batch_size // (t.micro_batch_size * dp),
        )
        shape = padded(self.shape, self.config.model.pad_heads_to, t.tp)
        reason = misfit(shape, found)
        if reason:
            raise SdrrlError(f"trainer: {reason}")
        check_option_sizes(self.config.megatron, shape.layers // (t.pp * t.vpp), {"hidden size": shape.hidden})
        if self.config.megatron.fp8 != NONE and self.gpu.generation == "ampere":
            raise SdrrlError(f"megatron.fp8: {self.gpu.name} has no products in fp8, which begin with Ada and Hopper")
        return found

    def result(self, gpus: int) -> Result:
        """Everything about ``gpus`` GPUs; SdrrlError where nothing fits, with what would."""
        configured, refused = None, ""
        try:
            configured = self.predict(self.layout(gpus))
        except SdrrlError as e:
            refused = str(e)
        plans = self.plans(gpus)
        if plans:
            return Result(plans, configured, refused)
        lean = self.leanest(gpus)
        if lean is None:
            raise SdrrlError(f"--gpus {gpus}: the recipe accepts no layout of so many GPUs ({refused})")
        found = lean.layout
        raise SdrrlError(
            f"--gpus {gpus}: nothing fits: the leanest layout (TP {found.tp}, PP {found.pp}, CP {found.cp}, DP "
            f"{found.dp}, micro-batch {found.micro_batch_size}) needs {lean.memory.total / 1e9:.1f} of the "
            f"{self.gpu.memory_gb:.0f} GB of {self.gpu.name}; {self.what_would_fit(gpus)}"
        )

    def predict(self, layout: Layout) -> Plan:
        """Memory and time of a layout."""
        w, build = self.workload, self.build()
        shape = padded(self.shape, self.config.model.pad_heads_to, layout.tp)
        row = w.row_of(layout.cp)
        stage, memory = fullest(shape, layout, build, row)
        step = step_seconds(shape, layout, build, Work(row, w.pairs), self.gpu)
        tokens = layout.global_batch_size * w.row_tokens * w.filled
        of_sample = training_flops(self.shape, np.asarray([w.sample_tokens]), frozen=bool(build.adapters))
        flops = of_sample / w.sample_tokens * tokens
        return Plan(
            layout=layout,
            stage=stage,
            memory=memory,
            step=step,
            fits=memory.total <= self.gpu.memory_gb * 1e9,
            tokens_per_second=tokens / step.total,
            hours=w.steps(self.config) * step.total / 3600,
            mfu=flops / step.total / (layout.gpus * self.gpu.bf16_tflops * 1e12),
        )

    def checkpoint_bytes(self, layout: Layout) -> float:
        """Of a whole checkpoint of the run in ``layout``."""
        shape = padded(self.shape, self.config.model.pad_heads_to, layout.tp)
        return checkpoint_bytes(shape, layout, self.build())

    def loaded_bytes(self, layout: Layout) -> float:
        """What reading a checkpoint holds on the fullest rank, beside the run's own."""
        shape = padded(self.shape, self.config.model.pad_heads_to, layout.tp)
        return max(loaded_bytes(shape, layout, self.build(), stage) for stage in range(layout.pp))

    def read_bytes(self, layout: Layout) -> tuple[float, float]:
        """(bytes a rank reads of a checkpoint at most, host memory that takes at a time)."""
        shape, build = padded(self.shape, self.config.model.pad_heads_to, layout.tp), self.build()
        most = max(read_bytes(shape, layout, build, stage) for stage in range(layout.pp))
        return most, read_host_bytes(shape, layout, build)

    def start_bytes(self, layout: Layout) -> tuple[float, float]:
        """The same of the start from a Hugging Face folder in 16 bit."""
        most = max(start_read_bytes(self.shape, layout, stage, 2) for stage in range(layout.pp))
        return most, start_host_bytes(self.shape, 2)

    def layouts(self, gpus: int) -> Iterator[Layout]:
        """Layouts that the recipe accepts, micro-batch sizes from small to large within one split."""
        for tp, pp, cp in _splits(gpus, self.shape.layers):
            for vpp in _divisors(self.shape.layers // pp) if pp > 1 else [1]:
                for sp in (False, True) if tp > 1 else (False,):
                    for micro in _divisors(self.config.trainer.global_batch_size):
                        parallel = {"tp": tp, "pp": pp, "cp": cp, "vpp": vpp, "sequence_parallel": sp}
                        found = self._accepted(gpus, {**parallel, "micro_batch_size": micro})
                        if found:
                            yield found

    def _accepted(self, gpus: int, changes: dict[str, int]) -> Layout | None:
        trainer = replace(self.config.trainer, **changes)  # type: ignore[arg-type]
        try:
            return replace(self, config=replace(self.config, trainer=trainer)).layout(gpus)
        except SdrrlError:
            return None

    def plans(self, gpus: int) -> list[Plan]:
        """For each split of the model the fastest micro-batch size that fits; fastest first, alike ones by size."""
        best: dict[tuple[int, ...], Plan] = {}
        for layout in self.layouts(gpus):
            found = self.predict(layout)
            key = (layout.tp, layout.pp, layout.vpp, layout.cp, layout.sequence_parallel)
            if found.fits and (key not in best or found.tokens_per_second > best[key].tokens_per_second):
                best[key] = found
        fastest = max((p.tokens_per_second for p in best.values()), default=0.0)

        def order(p: Plan) -> tuple[float, ...]:
            level = p.tokens_per_second > (1 - ALIKE) * fastest
            split = (p.layout.pp, p.layout.vpp, p.layout.cp, p.layout.tp) if level else (0, 0, 0, 0)
            return (not level, *split, -p.tokens_per_second)

        return sorted(best.values(), key=order)

    def largest_micro_batch(self, layout: Layout) -> int:
        """Most rows a micro-batch can have in this split; 0: not even one fits."""
        sizes = []
        for micro in _divisors(self.config.trainer.global_batch_size // layout.dp):
            accumulation = self.config.trainer.global_batch_size // (layout.dp * micro)
            candidate = replace(layout, micro_batch_size=micro, accumulation=accumulation)
            if layout.vpp > 1 and accumulation % layout.pp:
                continue
            if self.predict(candidate).fits:
                sizes.append(micro)
        return max(sizes, default=0)

    def leanest(self, gpus: int) -> Plan | None:
        """The layout that needs least memory, fitting or not; None where the recipe accepts none."""
        found = [self.predict(layout) for layout in self.layouts(gpus)]
        return min(found, key=lambda p: p.memory.total, default=None)

    def what_would_fit(self, gpus: int) -> str:
        """The smallest change under which something fits, as the end of a sentence."""
        for key, changes in (
            ("optim.use_distributed_optimizer=true", {"optim": {"use_distributed_optimizer": True}}),
            ("loss.kernel=fused_linear", {"loss": {"kernel": "fused_linear"}}),
            (
                "optim.use_distributed_optimizer=true and loss.kernel=fused_linear",
                {"optim": {"use_distributed_optimizer": True}, "loss": {"kernel": "fused_linear"}},
            ),
            ("megatron.recompute_granularity=selective", {"megatron": {"recompute_granularity": "selective"}}),
            (
                "megatron.recompute_granularity=full megatron.recompute_method=uniform megatron.recompute_num_layers=1",
                {"megatron": RECOMPUTE_ALL},
            ),
        ):
            other = replace(self, config=override(self.config, changes, key))
            if (lean := other.leanest(gpus)) and lean.fits:
                return f"with {key} it fits"
        everything = {"optim": {"use_distributed_optimizer": True}}
        other = replace(self, config=override(self.config, everything, "plan"))
        more = 2 * gpus
        while more <= MAX_GPUS:
            if (lean := other.leanest(more)) and lean.fits:
                return f"{more} GPUs with optim.use_distributed_optimizer=true would do"
            more *= 2
        return "shorter rows or a smaller trainer.global_batch_size per GPU are needed"


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]


def _splits(gpus: int, layers: int) -> Iterator[tuple[int, int, int]]:
    """(TP, PP, CP): tensor parallelism within a node only, as Narayanan et al. 2021 find it best."""
    for tp in _divisors(gpus):
        if tp > GPUS_PER_NODE:
            continue
        for pp in _divisors(gpus // tp):
            if layers % pp:
                continue
            for cp in _divisors(gpus // (tp * pp)):
                if cp <= MAX_CP:
                    yield tp, pp, cp
