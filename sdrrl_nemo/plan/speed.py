"""Seconds of a training step, predicted: work over what a GPU reaches, plus the communication that nothing hides.

    step = (micro-batches + (p - 1) / v) * slowest stage + gradient reduction + optimiser

Bubble (p - 1) / v: Narayanan et al. 2021, section 2.2. A stage's time for one micro-batch is the sum of its matrix
products (operations over ``Efficiency.matrix`` of the peak), attention, element-wise kernels (bytes over
``Efficiency.memory`` of the bandwidth) and exposed communication (bytes over ``Efficiency.links`` of the link). The
fractions are few, chosen on the runs docs/planning.md names, and checked on others.

No number here was measured on a GPU by this project.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from sdrrl_nemo.cost.flops import ModelShape
from sdrrl_nemo.cost.gpus import Gpu
from sdrrl_nemo.plan.layout import Build, Layout, recomputed_share, recomputes
from sdrrl_nemo.plan.memory import optimizer_bytes, trained_parameters

GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Efficiency:
    """Fractions of the data sheet's numbers that training reaches."""

    matrix: float
    """Of the peak, in matrix products."""
    attention: float
    """Of the peak, in flash attention, forward and backward together."""
    memory: float
    """Of the memory's bandwidth, in element-wise kernels."""
    links: float
    """Of the node's links, in collectives."""
    network: float = 0.7
    """Of the network. Assumed: no published run tells it apart."""
    fp8: float = 0.7
    """Of the peak in fp8, twice that in bf16, in matrix products; casts of what goes in and out are counted in."""


EFFICIENCY = {
    "ampere": Efficiency(matrix=0.75, attention=0.30, memory=0.6, links=0.6),
    "hopper": Efficiency(matrix=0.80, attention=0.30, memory=0.6, links=0.6),
}
"""Chosen by plan/calibrate.py. Ampere's runs are of 2021 and 2022, before flash attention (``attention`` is Hopper's)
and before some of today's fused kernels. Other generations take ``hopper``'s: no published bf16 run was found."""

KERNEL_SECONDS = 4e-6
"""Time the host needs to start a kernel; small models run no faster than that. A stated constant."""
LATENCY_SECONDS = 2e-5
"""Of a collective or a message between stages. A stated constant."""
KERNELS = {True: 70, False: 200}
"""Kernels of a layer, forward and backward, fused or not: counted roughly in the layer's modules."""
SCORE_BYTES = {False: 27, True: 88}
"""Traffic of an attention score kept in memory, forward and backward: passes over 16 bits, and dropout masks. True:
single operations of torch, the softmax in fp32, as megatron-core's local layers have it."""
EAGER_NORM_BYTES = 100
"""Traffic of a value that single operations of torch normalise in fp32, forward and backward, beyond a fused norm's."""
LOGIT_BYTES = {True: 6, False: 30}
"""Traffic of a logit: the product writes it, the loss reads it and writes its gradient. False, in GPT: Megatron's loss,
which works on an fp32 copy."""
ADAM_BYTES = 34
"""Traffic of a parameter in the optimiser step: gradient (also for its norm), master weight, moments, 16-bit copy."""


@dataclass(frozen=True)
class Step:
    """Seconds of a step by part; the first five are sums over micro-batches on the slowest stage."""

    matrices: float
    attention: float
    elementwise: float
    tensor_parallel: float
    """Tensor- and context-parallel communication that compute does not hide."""
    pipeline: float
    """Sending between stages."""
    bubble: float
    data_parallel: float
    optimizer: float

    @property
    def total(self) -> float:
        """Seconds."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Work:
    """What a micro-batch brings. ``pairs``: (query, key) pairs of a token within its sample, causal, on average."""

    row_tokens: int
    pairs: float


def step_seconds(
    shape: ModelShape, layout: Layout, build: Build, work: Work, gpu: Gpu, efficiency: Efficiency | None = None
) -> Step:
    """Seconds of a step. ``shape`` as Megatron pads it; all GPUs of a node are used before the next one.

    Args:
        efficiency: other than the one of the GPU's generation (plan/calibrate.py).
    """
    e = efficiency or EFFICIENCY.get(gpu.generation, EFFICIENCY["hopper"])
    model = _Stage(shape, layout, build, work, gpu, e)
    stages = [model.seconds(s) for s in {0, layout.pp - 1, layout.pp // 2}]
    slowest = max(stages, key=sum)
    mean = _mean_stage(layout, model)
    parts = [x * layout.accumulation for x in slowest]
    reduction = model.reduction(backward=2 / 3 * sum(slowest), forward=1 / 3 * sum(slowest))
    held = max(trained_parameters(shape, layout, build, s) for s in (0, layout.pp - 1))
    shard = optimizer_bytes(held, layout, build) / optimizer_bytes(1.0, Layout(), build)
    return Step(
        matrices=parts[0],
        attention=parts[1],
        elementwise=parts[2],
        tensor_parallel=parts[3],
        pipeline=parts[4],
        bubble=(layout.pp - 1) / layout.vpp * mean,
        data_parallel=reduction,
        optimizer=ADAM_BYTES * shard / (e.memory * gpu.bandwidth_gb_s * 1e9),
    )


def _mean_stage(layout: Layout, model: _Stage) -> float:
    first, last = sum(model.seconds(0)), sum(model.seconds(layout.pp - 1))
    middle = sum(model.seconds(1)) if layout.pp > 2 else 0.0
    if layout.pp == 1:
        return first
    return (first + last + middle * (layout.pp - 2)) / layout.pp


class _Stage:
    """Time of one micro-batch on one pipeline stage."""

    def __init__(
        self, shape: ModelShape, layout: Layout, build: Build, work: Work, gpu: Gpu, efficiency: Efficiency
    ) -> None:
        self.shape, self.layout, self.build, self.work, self.gpu, self.e = shape, layout, build, work, gpu, efficiency
        self.rows = work.row_tokens * layout.micro_batch_size
        self.tokens = self.rows / layout.cp
        self.layers = shape.layers / layout.pp
        self.again = recomputed_share(shape, layout, build)
        self.peak = gpu.bf16_tflops * 1e12 * (1.0 if build.width == 2 else 1 / 16)  # fp32 without TF32, torch's default

    def seconds(self, stage: int) -> tuple[float, float, float, float, float]:
        """(matrices, attention, element-wise, tensor and context parallel, pipeline) of forward and backward."""
        last = stage == self.layout.pp - 1
        matrices, attention = self.matrices(last), self.attention()
        elementwise = self.elementwise(last)
        launches = self.layers * KERNELS[self.build.fused] * KERNEL_SECONDS
        waiting = max(0.0, launches - matrices - attention - elementwise)
        return matrices, attention, elementwise + waiting, self.parallel(), self.pipeline()

    def matrices(self, last: bool) -> float:
        """Three products a projection, a fourth where the forward pass is done again; frozen ones need no third."""
        s, tp = self.shape, self.layout.tp
        passes = 3 + self.again - (1 if self.build.adapters else 0)
        layers = passes * self.layers * self._product(s.layer_matrices() / tp)
        if recomputes(self.build, "mlp"):
            layers += self.layers * self._product((3 if s.gated else 2) * s.hidden * s.feed_forward / tp)
        if self.build.fp8:
            layers *= self.e.matrix / (2 * self.e.fp8)
        return layers + (
            (2 if self.build.adapters else 3) * self._product(s.hidden * s.vocabulary / tp) if last else 0.0
        )

    def _product(self, size: float) -> float:
        """Seconds of one product of all tokens with a matrix of ``size`` elements."""
        return 2 * self.tokens * size / (self.e.matrix * self.peak)

    def attention(self) -> float:
        """Scores and values: twice the forward pass backward, and once more where flash attention recomputes scores."""
        s, b = self.shape, self.build
        pairs = self.rows * self.work.pairs / self.layout.cp * self.layers
        forward = 4 * pairs * s.heads * s.head_dim / self.layout.tp
        if b.flash:
            passes = 3.5 + (1.0 if recomputes(b, "core_attn") else self.again)
            return passes * forward / (self.e.attention * self.peak)
        # plain products over all pairs, not the causal half
        passes = 3.0 + (1.0 if recomputes(b, "core_attn") else self.again)
        scores = 2 * pairs * s.heads / self.layout.tp * SCORE_BYTES["softmax" in b.eager] * passes / 3
        return 2 * passes * forward / (self.e.matrix * self.peak) + scores / self._bandwidth()

    def _bandwidth(self) -> float:
        return self.e.memory * self.gpu.bandwidth_gb_s * 1e9

    def elementwise(self, last: bool) -> float:
        """Norms, rotary positions, activation, residuals, loss, and weight gradients added to the fp32 ones."""
        s, b, tp = self.shape, self.build, self.layout.tp
        split = tp if self.layout.sequence_parallel else 1
        heads = (s.heads + s.groups) * s.head_dim / tp
        if s.gated:  # RMSNorm, rotary positions, SwiGLU
            elements = 22 * s.hidden / split + 4 * heads + 8 * s.feed_forward / tp
        else:  # LayerNorm, biased GELU, dropout
            elements = 30 * s.hidden / split + 5 * s.feed_forward / tp
        if b.adapters:  # inputs and outputs of the adapted projections, read, made and added, forward and backward
            elements += 4 * b.adapters / b.adapter_rank / tp
        if not b.fused:
            elements *= 2.5
        elements *= 1 + self.again / 3
        elements += 3 * s.feed_forward / tp if recomputes(b, "mlp") else 0.0
        elements += 4 * s.hidden / split if recomputes(b, "layernorm") else 0.0
        if "norm" in b.eager:
            elements += 2 * EAGER_NORM_BYTES / b.width * s.hidden / split
        moved = self.tokens * self.layers * elements * b.width
        trained = b.adapters or s.layer_matrices()
        moved += self.layers * trained / tp * (8 if b.fused_accumulation else 12)
        if last:
            moved += self.tokens * s.vocabulary / tp * LOGIT_BYTES[s.gated] * b.width / 2
        return moved / self._bandwidth()

    def _reduce(self, size: float, ranks: int, rate: float, passes: int = 2) -> float:
        """Seconds of a ring: ``passes`` 2 is an all-reduce, 1 a reduce-scatter or an all-gather; ``rate`` bytes/s."""
        return passes * (ranks - 1) / ranks * size / rate

    def parallel(self) -> float:
        """Tensor parallel: two all-reduces forward, two backward, which overlap with the weight gradients' products.

        Sequence parallelism: the same volume in two halves; the backward all-gathers are not hidden (Megatron's
        tensor_parallel/layers.py). Context parallel: keys and values travel once around, twice backward.
        """
        tp, cp, width = self.layout.tp, self.layout.cp, self.build.width
        total = 0.0
        if tp > 1:
            rate = self.e.links * self.gpu.link_gb_s * 1e9 if tp <= GPUS_PER_NODE else self._network(1)
            one = self._reduce(self.tokens * self.shape.hidden * width, tp, rate) + LATENCY_SECONDS
            again = 1.0 if recomputes(self.build, "mlp") else 2 * self.again
            forward = (2 + again) * one
            weights = self._product(self.shape.layer_matrices() / tp)
            backward = (one if self.layout.sequence_parallel else 0.0) + max(0.0, 2 * one - weights)
            exposed = forward + backward
            if self.build.tp_comm_overlap:  # in as many pieces as ranks; nothing hides the first
                exposed = exposed / tp + max(0.0, exposed * (1 - 1 / tp) - 2 * weights)
            total += self.layers * exposed
        if cp > 1:
            rate = self.e.links * self.gpu.link_gb_s * 1e9 if tp * cp <= GPUS_PER_NODE else self._network(tp)
            keys = self.rows * 2 * self.shape.groups * self.shape.head_dim / tp * width
            moved = 3 * (self._reduce(keys, cp, rate, passes=1) + LATENCY_SECONDS) * self.layers
            total += max(0.0, moved - self.attention()) if self.build.fused else moved
        return total

    def _network(self, ranks_of_node: int) -> float:
        """Bytes/s of one rank between nodes, of ``ranks_of_node`` that send different data at a time."""
        return self.e.network * self.gpu.network_gb_s * 1e9 * max(1, ranks_of_node)

    def pipeline(self) -> float:
        """One hidden state to the next stage and one gradient back for every chunk; TP ranks share the sending."""
        layout = self.layout
        if layout.pp == 1:
            return 0.0
        size = self.tokens * self.shape.hidden * self.build.width / layout.tp
        inside = layout.gpus <= GPUS_PER_NODE
        rate = self.e.links * self.gpu.link_gb_s * 1e9 if inside else self._network(1)
        return 2 * layout.vpp * (size / rate + LATENCY_SECONDS)

    def reduction(self, backward: float, forward: float) -> float:
        """Gradients summed over data-parallel (and context-parallel) ranks, parameters gathered; exposed part."""
        layout, build = self.layout, self.build
        ranks = layout.dp * layout.cp
        if ranks == 1:
            return 0.0
        held = max(trained_parameters(self.shape, layout, build, s) for s in (0, layout.pp - 1))
        in_node = layout.tp * ranks <= GPUS_PER_NODE
        links = self.e.links * self.gpu.link_gb_s * 1e9
        rate = links if in_node else min(links, self._network(max(1, GPUS_PER_NODE // layout.tp)))
        gradients = held * (build.gradient_bytes if build.width == 2 else 4)
        if not build.distributed_optimizer:
            reduced, gathered = self._reduce(gradients, ranks, rate), 0.0
        else:
            reduced = self._reduce(gradients, ranks, rate, passes=1)
            gathered = self._reduce(held * build.width, ranks, rate, passes=1)
        hidden = (backward if build.overlap_grad_reduce else 0.0, forward if build.overlap_param_gather else 0.0)
        return max(0.0, reduced - hidden[0]) + max(0.0, gathered - hidden[1])
