"""What each method trains on: combinations, whether questions are switched, who answers, and no sample twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import PreprocessConfig, SubsetsConfig
from sdrrl_nemo.data.methods import METHODS, Recipe, plan

ROOT = Path(__file__).resolve().parents[3]
ALL = ("LL", "TL", "LT", "TT")
ENG_POR, ENG_FRA, FRA_POR = ("eng", "por"), ("eng", "fra"), ("fra", "por")


def config(method: str, targets: tuple[str, ...] = ("por",), **subsets: Any) -> PreprocessConfig:
    return PreprocessConfig(method=method, target_languages=list(targets), subsets=SubsetsConfig(**subsets))


# paper, sections 3 and 4.1: (combinations, parallel, code-switched questions, one combination drawn a question)
RECIPES = {
    "sdrrl": Recipe(ALL, ("mt", "comp"), True, False),
    "sft": Recipe(("LL",), (), False, False),
    "t_sft": Recipe(("TT",), (), False, False),
    "t_sft_both": Recipe(("LL", "TT"), (), False, False),
    "cit": Recipe(ALL, (), False, True),
    "xcot": Recipe(("LL", "TL", "TT"), (), True, False),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_trains_on(method: str) -> None:
    assert plan(config(method)).recipes == {ENG_POR: RECIPES[method]}


@pytest.mark.parametrize("method", METHODS)
def test_only_self_distillation_asks_the_model(method: str) -> None:
    made = plan(config(method))
    assert made.uses_questions("eng")
    assert made.asks_the_model("eng") is (method == "sdrrl")
    assert not made.asks_the_model("fra")  # no pair has it as its source


def test_without_questions_the_model_is_not_asked() -> None:
    only_parallel = plan(config("sdrrl", combinations=[]))
    assert only_parallel.recipes[ENG_POR] == Recipe((), ("mt", "comp"), False, False)
    assert not only_parallel.uses_questions("eng") and not only_parallel.asks_the_model("eng")
    baseline = config("sft")
    baseline.synth.mode = "both"
    assert plan(baseline).asks_the_model("eng")


@pytest.mark.parametrize(
    ("method", "subsets", "second"),
    [
        ("sft", {}, {}),
        ("t_sft", {}, {"TT": "t_sft"}),
        ("t_sft", {"combinations": ["LL", "TT"]}, {"TT": "t_sft"}),
        # switched or drawn samples differ from target to target
        ("xcot", {}, {"LL": "xcot", "TL": "xcot", "TT": "xcot"}),
        ("cit", {}, dict.fromkeys(ALL, "cit")),
        ("cit", {"combinations": ["LL", "TL"]}, {"TL": "cit"}),
        ("sdrrl", {}, {c: f"{c}.eng-fra" for c in ALL}),
    ],
)
def test_plain_english_samples_are_made_for_the_first_pair_alone(
    method: str, subsets: dict[str, Any], second: dict[str, str]
) -> None:
    made = plan(config(method, ("por", "fra"), **subsets))
    assert made.pairs == (ENG_POR, ENG_FRA)
    assert made.combinations_of(ENG_FRA) == second
    first = made.combinations_of(ENG_POR)
    assert tuple(first) == made.recipes[ENG_POR].combinations


def test_another_source_makes_its_own_plain_samples() -> None:
    two = PreprocessConfig(method="sft", pairs=[list(ENG_POR), list(FRA_POR)])
    made = plan(two)
    assert made.combinations_of(ENG_POR) == made.combinations_of(FRA_POR) == {"LL": "sft"}


def test_subsets_are_named_by_kind_and_with_several_pairs_by_pair() -> None:
    assert plan(config("sdrrl")).subset_names() == (*ALL, "mt", "comp")
    several = plan(config("sdrrl", ("por", "fra"), combinations=["TL", "LL"], parallel=["comp"]))
    assert several.subset_names() == tuple(f"{k}.eng-{t}" for t in ("por", "fra") for k in ("LL", "TL", "comp"))
    assert several.parallel_of(ENG_FRA) == {"comp": "comp.eng-fra"}
    assert plan(config("xcot", ("por", "fra"))).subset_names() == ("xcot",)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_eq_6_for_subsets_and_eq_2_for_one_set(method: str) -> None:
    equation = "6" if method == "sdrrl" else "2"
    assert plan(config(method)).loss() == {"sample_reduction": "mean", "equation": equation}


def test_answer_language_is_the_methods_unless_chosen() -> None:
    assert plan(config("cit")).answer_language == "always"
    assert plan(config("sdrrl")).answer_language == "implicit"
    assert plan(config("cit", answer_language="request")).answer_language == "request"
    assert plan(config("sdrrl", open_answer_language="request")).answer_language == "request"
    assert plan(config("cit", open_answer_language="request")).answer_language == "always"


@pytest.mark.parametrize(
    ("section", "subsets", "message"),
    [
        ("translation", {}, "translation.name is 'none' for eng-por, .* set subsets.combinations"),
        ("translation", {"combinations": ["LL"]}, None),
        ("parallel", {}, "parallel.engine.name is 'none' for eng-por, .* the subsets mt, comp"),
        ("parallel", {"parallel": []}, None),
        ("", {"combinations": [], "parallel": []}, "both empty for eng-por: nothing is left to train on"),
    ],
)
def test_subsets_that_nothing_can_make_are_refused(section: str, subsets: dict[str, Any], message: str | None) -> None:
    chosen = config("sdrrl", **subsets)
    if section == "translation":
        chosen.translation.name = "none"
    if section == "parallel":
        chosen.parallel.engine.name = "none"
    if message is None:
        assert plan(chosen).pairs == (ENG_POR,)
        return
    with pytest.raises(SdrrlError, match=message):
        plan(chosen)


def test_unknown_method() -> None:
    with pytest.raises(SdrrlError, match="unknown method 'sdrl'; did you mean 'sdrrl'"):
        plan(config("sdrl"))


def test_a_pair_without_a_dictionary_is_not_switched() -> None:
    config = load_config(PreprocessConfig, ROOT / "configs/data/paper_eng.yaml")
    recipes = plan(config).recipes
    assert [pair for pair, recipe in recipes.items() if not recipe.code_switch] == [("eng", "khm")]
    assert recipes["eng", "khm"].combinations == ("LL", "TL", "LT", "TT")
