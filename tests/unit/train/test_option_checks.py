"""The section ``megatron``: what is refused, in one sentence each, and what a plan says of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from sdrrl_nemo.common.config import override
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.config import ModelSettings, RunConfig, check
from sdrrl_nemo.train.megatron_options.option_checks import check_option_machine, check_option_sizes
from sdrrl_nemo.train.megatron_options.option_settings import (
    MegatronSettings,
    notes,
    option_identity,
    option_words,
    row_multiple,
)

FULL = {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 2}
SELECTIVE = {"recompute_granularity": "selective"}
TP2 = {"trainer": {"tp": 2, "sequence_parallel": True}}


def _config(changes: dict[str, Any]) -> RunConfig:
    config = RunConfig(run_dir="r", model=ModelSettings(hf_path="m"))
    return override(config, changes, "test")


@pytest.mark.parametrize(
    ("megatron", "others", "message"),
    [
        ({"recompute_granularity": "all"}, {}, "megatron.recompute_granularity: 'all' is not one of none, selective"),
        ({**FULL, "recompute_method": ""}, {}, "recompute_method: '' is not one of uniform, block"),
        ({**FULL, "recompute_num_layers": 0}, {}, "recompute_num_layers: must be at least 1"),
        ({"recompute_num_layers": 2}, {}, "recompute_granularity: full, which is none"),
        ({**SELECTIVE, "recompute_method": "block"}, {}, "recompute_granularity: full, which is selective"),
        ({**SELECTIVE, "recompute_modules": ["moe"]}, {}, "'moe' is not a part of these models; choose from core_attn"),
        ({**SELECTIVE, "recompute_modules": []}, {}, "recompute_modules: empty, or a name twice"),
        ({**SELECTIVE, "recompute_modules": ["layernorm"]}, {"model": {"layers": "te"}}, "layernorm is no part"),
        ({"overlap_param_gather": True, "overlap_grad_reduce": True}, {}, "overlap_param_gather needs optim.use_dist"),
        (
            {"overlap_param_gather": True},
            {"optim": {"use_distributed_optimizer": True}},
            "and megatron.overlap_grad_reduce=true",
        ),
        ({"tp_comm_overlap": True}, {"trainer": {"tp": 2}}, "needs trainer.tp > 1 and trainer.sequence_parallel"),
        ({"tp_comm_overlap": True}, {**TP2, "model": {"layers": "local"}}, "is Transformer Engine's"),
        ({"gradient_accumulation_fusion": True}, {"lora": {"rank": 4}}, "lora.rank freezes them"),
        ({"fp8": "e5m2"}, {}, "megatron.fp8: 'e5m2' is not one of none, hybrid, e4m3"),
        ({"fp8": "hybrid", "fp8_recipe": "mxfp8"}, {}, "fp8_recipe: 'mxfp8' is not one of delayed, tensorwise"),
        ({"fp8": "hybrid"}, {"model": {"layers": "local"}}, "megatron.fp8 is Transformer Engine's"),
        ({"fp8": "hybrid"}, {"trainer": {"precision": "fp32"}}, "megatron.fp8 is Transformer Engine's"),
        ({"fp8": "hybrid"}, {"lora": {"rank": 4}}, "megatron.fp8 with lora.rank"),
        ({"cuda_graph_impl": "local"}, {}, "each row has another number of samples"),
    ],
)
def test_what_cannot_work_is_refused(megatron: dict[str, Any], others: dict[str, Any], message: str) -> None:
    config = _config({"megatron": megatron, **others})
    with pytest.raises(SdrrlError, match=message):
        check(config, 2)


@pytest.mark.parametrize("megatron", [FULL, SELECTIVE, {"overlap_grad_reduce": True}, {"fp8": "hybrid"}])
def test_what_can_work_is_not(megatron: dict[str, Any]) -> None:
    check(_config({"megatron": megatron}), 2)


def test_layers_of_a_chunk() -> None:
    check_option_sizes(MegatronSettings(**FULL), 2, {})
    check_option_sizes(MegatronSettings(**{**FULL, "recompute_method": "uniform"}), 4, {})
    with pytest.raises(SdrrlError, match="recompute_num_layers=2: must be at most the 1 layers"):
        check_option_sizes(MegatronSettings(**FULL), 1, {})
    with pytest.raises(SdrrlError, match="must divide the 3 layers of a model chunk"):
        check_option_sizes(MegatronSettings(**{**FULL, "recompute_method": "uniform"}), 3, {})
    with pytest.raises(SdrrlError, match="the feed-forward size of a rank is 24, and products in fp8 need multiples"):
        check_option_sizes(MegatronSettings(fp8="hybrid"), 4, {"hidden size": 64, "feed-forward size": 24})


def test_what_a_machine_lacks() -> None:
    ampere, hopper = (8, 0), (9, 0)
    check_option_machine(MegatronSettings(fp8="hybrid"), "te", hopper)
    with pytest.raises(SdrrlError, match=r"compute capability 8.0 has no products in fp8"):
        check_option_machine(MegatronSettings(fp8="hybrid"), "te", ampere)
    with pytest.raises(SdrrlError, match=r"megatron.tp_comm_overlap needs Transformer Engine and a GPU"):
        check_option_machine(MegatronSettings(tp_comm_overlap=True), "local", None)
    with pytest.raises(SdrrlError, match="apex built with its CUDA extensions"):
        check_option_machine(MegatronSettings(gradient_accumulation_fusion=True), "te", hopper)
    with pytest.raises(SdrrlError, match="layernorm is no part of its own"):  # auto came to te
        check_option_machine(MegatronSettings(**SELECTIVE, recompute_modules=["mlp", "layernorm"]), "te", hopper)


def test_rows_in_fp8_are_multiples_of_16_tp_cp() -> None:
    plain, fp8 = MegatronSettings(), MegatronSettings(fp8="hybrid")
    granularity = {1: 1, 2: 4, 4: 8}  # 2 x cp under context parallelism
    for cp, unit in granularity.items():
        assert row_multiple(fp8, 2, cp, False) * unit == 16 * 2 * cp
    assert (row_multiple(plain, 2, 1, True), row_multiple(plain, 2, 1, False)) == (2, 1)


def test_what_a_plan_says() -> None:
    assert option_words(MegatronSettings()) == "none"
    m = MegatronSettings(**SELECTIVE, overlap_grad_reduce=True, fp8="hybrid")
    assert option_words(m) == "recompute selective (mlp), overlap_grad_reduce, fp8 hybrid (delayed)"
    assert [note.partition(" has not run on a card")[0] for note in notes(m)] == ["megatron.fp8"]
    assert option_identity(m) == {"fp8": "hybrid (delayed)"}
    assert option_identity(MegatronSettings(**FULL)) == {}
