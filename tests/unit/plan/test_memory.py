"""Memory formulas against Megatron-LM's own estimate and the numbers of its papers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdrrl_nemo.cost.flops import ModelShape, padded_vocabulary
from sdrrl_nemo.plan import activations
from sdrrl_nemo.plan.layout import Build, Layout, adapter_parameters, padded
from sdrrl_nemo.plan.memory import chunk_bytes, in_flight, memory, stage_parameters

LLAMA_7B = ModelShape(32, 4096, 32, 32, 128, 11008, 32000)
GPT_175B = ModelShape(96, 12288, 96, 96, 128, 4 * 12288, 51200, gated=False)


@pytest.mark.parametrize(("dp", "distributed", "each"), [(1, False, 18), (8, False, 18), (8, True, 6 + 12 / 8)])
def test_bytes_a_parameter_are_megatrons(dp: int, distributed: bool, each: float) -> None:
    """theoretical_memory_usage.py: 18 bytes, or 6 + 12 / DP with the distributed optimiser."""
    found = memory(LLAMA_7B, Layout(dp=dp), Build(distributed_optimizer=distributed), 4096, 0)
    assert found.parameters + found.gradients + found.optimizer == pytest.approx(each * LLAMA_7B.parameters())


def test_context_parallel_ranks_share_the_optimiser_state() -> None:
    shared = memory(LLAMA_7B, Layout(cp=2, dp=4), Build(distributed_optimizer=True), 4096, 0)
    alone = memory(LLAMA_7B, Layout(), Build(), 4096, 0)
    assert shared.optimizer == pytest.approx(alone.optimizer / 8)


def test_stages_hold_the_whole_model_once() -> None:
    for shape in (LLAMA_7B, replace(LLAMA_7B, qkv_bias=True), replace(LLAMA_7B, tied=True)):
        twice = shape.vocabulary * shape.hidden if shape.tied else 0  # on the first and on the last stage
        for tp in (1, 2):
            layout = Layout(tp=tp, pp=4)
            whole = tp * sum(stage_parameters(shape, layout, s) for s in range(4))
            replicated = (tp - 1) * (2 * shape.layers + 1) * shape.hidden  # norms, on every rank
            assert whole == shape.parameters() + replicated + twice


def test_most_loaded_shard_of_megatrons_estimate() -> None:
    """theoretical_memory_usage.py: (transformer block / PP + one embedding) / TP, norms split in its estimate."""
    block = LLAMA_7B.layers * LLAMA_7B.layer_parameters() + LLAMA_7B.hidden
    theirs = (block / 4 + LLAMA_7B.vocabulary * LLAMA_7B.hidden) / 2
    assert stage_parameters(LLAMA_7B, Layout(tp=2, pp=4), 3) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize(
    ("sequence_parallel", "recompute", "of_sbh"),
    [(False, "none", 10 + 24 / 8 + 5 * 96 * 2048 / (12288 * 8)), (True, "selective", 34 / 8), (False, "full", 2)],
)
def test_activations_of_korthikantis_table_2(sequence_parallel: bool, recompute: str, of_sbh: float) -> None:
    """Their example: selective recomputation saves 70% of GPT-3's activations."""
    layout = Layout(tp=8, sequence_parallel=sequence_parallel)
    build = Build(recompute=recompute, flash=False)
    assert activations.gpt_layer(GPT_175B, layout, build, 2048) == pytest.approx(12288 * of_sbh)
    everything = activations.gpt_layer(GPT_175B, Layout(), Build(flash=False), 2048)
    without_scores = activations.gpt_layer(GPT_175B, Layout(), Build(flash=False, recompute="selective"), 2048)
    assert 1 - without_scores / everything == pytest.approx(0.70, abs=0.005)


def test_interleaving_costs_what_megatron_says() -> None:
    """1 + (p - 1) / (p v) of the first stage's activations, against p micro-batches without interleaving."""
    for p, v in ((4, 2), (8, 3), (35, 3)):
        plain = in_flight(Layout(pp=p, accumulation=1000), 0)
        chunks = in_flight(Layout(pp=p, vpp=v, accumulation=1000), 0)
        assert plain == p
        assert chunks / v / plain == pytest.approx(1 + (p - 1) / (p * v))
    assert in_flight(Layout(pp=8, accumulation=3), 0) == 3
    assert in_flight(Layout(pp=8, accumulation=1000), 7) == 1


def test_sequence_parallelism_splits_what_tensor_parallelism_leaves_whole() -> None:
    whole = activations.layer(LLAMA_7B, Layout(), Build())
    with_sp = activations.layer(LLAMA_7B, Layout(tp=2, sequence_parallel=True), Build())
    assert with_sp == pytest.approx(whole / 2)
    only_tp = activations.layer(LLAMA_7B, Layout(tp=2), Build())
    assert only_tp - with_sp == pytest.approx(activations.norm(4096, Build()))


def test_fused_loss_keeps_no_logits() -> None:
    tokens = 8 * 4096
    plain = memory(LLAMA_7B, Layout(micro_batch_size=8), Build(), 4096, 0)
    fused = memory(LLAMA_7B, Layout(micro_batch_size=8), Build(fused_linear=True), 4096, 0)
    logits = 2 * tokens * 32000
    assert plain.loss - fused.loss == pytest.approx(logits)


def test_fused_loss_has_a_chunk_of_logits_and_no_buffer_for_the_weights_gradient() -> None:
    for mib, rows in {None: 8192, 128: 2048, 1: 1024}.items():
        assert chunk_bytes(LLAMA_7B, Layout(), Build(chunk_mib=mib), 8 * 4096) == 2 * rows * 32000
    wide = replace(LLAMA_7B, vocabulary=262144)  # else the feed-forward's gradients are larger
    found = memory(wide, Layout(), Build(fused_linear=True), 4096, 0)
    assert found.temporary == 2 * 1024 * 262144 + 2 * 4096 * 4096
    assert memory(wide, Layout(tp=2), Build(fused_linear=True), 4096, 0).temporary == found.temporary


def test_lora_trains_adapters_only() -> None:
    targets = ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"]
    each = adapter_parameters(LLAMA_7B, 16, targets)
    assert each == 16 * (4 * 4096 + 8192 + 4096 + 2 * 11008 + 11008 + 4096)
    found = memory(LLAMA_7B, Layout(), Build(adapters=each), 4096, 0)
    assert found.gradients == 4 * 32 * each
    assert found.optimizer == 12 * 32 * each
    assert found.parameters == pytest.approx(2 * (LLAMA_7B.parameters() + 32 * each))


def test_padding_adds_whole_groups_and_rows() -> None:
    smollm2 = ModelShape(30, 576, 9, 3, 64, 1536, 49152, tied=True)
    found = padded(smollm2, 2, 5)
    assert (found.heads, found.groups, found.vocabulary) == (12, 4, 49280)  # a multiple of 64 that 5 divides
    assert padded(smollm2, 1, 4).vocabulary == 49152


@pytest.mark.parametrize(
    ("rows", "tp", "want"),
    [
        *((32000, tp, 32768) for tp in (1, 2, 4, 8)),
        *((32003, tp, 32768) for tp in (1, 2, 4, 8, 16)),
        *((151936, tp, 152576) for tp in (1, 2, 4, 8)),
        (151936, 16, 153600),  # a multiple of 128 on each of 16 ranks
        (128256, 3, 129024),
        (32000, 3, 32064),  # 33,792 would be a multiple of 128 on each of three ranks and of eight
        (49152, 7, 50176),
        (1031, 1, 1088),  # a small vocabulary
        (1031, 8, 1088),
        (31775, 1, 31808),  # 993 rows more would be one too many
        (31776, 1, 32768),
    ],
)
def test_padded_vocabulary(rows: int, tp: int, want: int) -> None:
    assert padded_vocabulary(rows, tp) == want
    assert want % tp == 0 and want % 64 == 0
