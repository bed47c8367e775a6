"""SDRRL and its baselines (paper, section 4.1) as data recipes: which samples a method trains on, and its loss.

Every method reads the same configuration; only ``method:`` and, for ablations (Table 6), a key or two differ.
docs/methods.md gives the sources and what they leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.config import (
    COMBINATIONS,
    NO_CORPUS,
    NO_DICTIONARY,
    NO_TRANSLATOR,
    PARALLEL_KINDS,
    Pair,
    PreprocessConfig,
)
from sdrrl_nemo.data.pairs import for_pair, language_pairs, pair_name


@dataclass(frozen=True)
class Method:
    """What a method does where the configuration says nothing.

    ``subset``: the one subset that holds every sample, so that Eq. 6 becomes Eq. 2; None: one subset a kind.
    ``synth``: see SynthConfig. ``draws``: each question is given one combination at random instead of all of them;
    where the configuration names combinations of its own, all of those are made. ``answer_language``: None leaves it to
    ``subsets.open_answer_language``.
    """

    title: str
    combinations: tuple[str, ...]
    parallel: tuple[str, ...] = ()
    subset: str | None = None
    synth: str = "answers"
    code_switch: bool = False
    answer_language: str | None = None
    draws: bool = False
    sample_reduction: str = "mean"


METHODS: dict[str, Method] = {
    "sdrrl": Method(
        "Self-distillation from resource-rich languages (section 3.2)",
        COMBINATIONS,
        PARALLEL_KINDS,
        synth="sample",
        code_switch=True,
    ),
    "sft": Method("Supervised fine-tuning on D (section 3.1)", ("LL",), subset="sft"),
    # Section 4.1 says "multilingual data": the translations alone (Eq. 3), or the source language's data with them.
    "t_sft": Method("Translate-then-SFT (section 3.1; Chen et al. 2023a)", ("TT",), subset="t_sft"),
    "t_sft_both": Method("Translate-then-SFT on D and its translation", ("LL", "TT"), subset="t_sft_both"),
    "cit": Method(
        "Cross-lingual instruction tuning (Li et al. 2023a)",
        COMBINATIONS,
        subset="cit",
        answer_language="always",
        draws=True,
    ),
    "xcot": Method(
        "Code-switched multilingual instructions with cross-lingual distillation (Chai et al. 2024)",
        ("LL", "TL", "TT"),
        subset="xcot",
        code_switch=True,
    ),
}


@dataclass(frozen=True)
class Recipe:
    """A method with the configuration's own choices put in, for one pair of languages."""

    combinations: tuple[str, ...]
    parallel: tuple[str, ...]
    code_switch: bool
    draws: bool

    @property
    def needs_translation(self) -> bool:
        """Whether training samples hold translated text."""
        return any("T" in combination for combination in self.combinations)


@dataclass(frozen=True)
class Plan:
    """What a run makes: its pairs, a recipe for each, and what holds for all of them."""

    method: str
    preset: Method
    synth: str
    answer_language: str
    recipes: dict[Pair, Recipe]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the run in order."""
        return tuple(self.recipes)

    def uses_questions(self, source: str) -> bool:
        """Whether any subset is made of a source language's questions; without, there is no D_synth."""
        return any(r.combinations for p, r in self.recipes.items() if p[0] == source)

    def asks_the_model(self, source: str) -> bool:
        """Whether y_hat is generated for a source language."""
        return self.synth != "answers" and self.uses_questions(source)

    def combinations_of(self, pair: Pair) -> dict[str, str]:
        """Combination -> name of its subset, for one pair. Plain source-language samples are the same for every
        target, so only the first pair of a source makes them."""
        recipe = self.recipes[pair]
        # With one subset for all pairs, plain LL samples of a second pair would be exact repeats. Code-switched ones
        # are not, since each pair has its dictionary, and drawn ones differ by their draw.
        first = next(p for p in self.pairs if p[0] == pair[0])
        shared = self.preset.subset is not None and not recipe.code_switch and not recipe.draws and pair != first
        return {c: self._subset_of(c, pair) for c in recipe.combinations if not (shared and c == "LL")}

    def parallel_of(self, pair: Pair) -> dict[str, str]:
        """``mt`` and ``comp``, as far as they are made for a pair -> name of the subset."""
        return {kind: self._subset_of(kind, pair) for kind in self.recipes[pair].parallel}

    def _subset_of(self, kind: str, pair: Pair) -> str:
        # Eq. 6 takes the mean over each subset: a pair's subsets weigh as much as another pair's, however small.
        if self.preset.subset is not None:
            return self.preset.subset
        return kind if len(self.recipes) == 1 else f"{kind}.{pair_name(pair)}"

    def subset_names(self) -> tuple[str, ...]:
        """All subsets in their fixed order: pair by pair, LL TL LT TT mt comp within a pair."""
        named = (
            n for p in self.pairs for kinds in (self.combinations_of(p), self.parallel_of(p)) for n in kinds.values()
        )
        return tuple(dict.fromkeys(named))

    def loss(self) -> dict[str, Any]:
        """What training should set, for the manifest of the packed set."""
        return {"sample_reduction": self.preset.sample_reduction, "equation": "2" if self.preset.subset else "6"}


def method(name: str) -> Method:
    """The method of that name; SdrrlError suggests the nearest."""
    if name not in METHODS:
        raise SdrrlError(f"method: unknown method '{name}'{suggest(name, METHODS)}")
    return METHODS[name]


def plan(config: PreprocessConfig) -> Plan:
    """What ``config`` makes; SdrrlError when nothing would be left to train on."""
    preset = method(config.method)
    return Plan(
        method=config.method,
        preset=preset,
        synth=config.synth.mode or preset.synth,
        answer_language=config.subsets.answer_language or preset.answer_language or config.subsets.open_answer_language,
        recipes={pair: _recipe(for_pair(config, pair), preset, pair) for pair in language_pairs(config)},
    )


def _recipe(config: PreprocessConfig, preset: Method, pair: Pair) -> Recipe:
    chosen = config.subsets
    combinations = preset.combinations if chosen.combinations is None else _ordered(chosen.combinations, COMBINATIONS)
    parallel = preset.parallel if chosen.parallel is None else _ordered(chosen.parallel, PARALLEL_KINDS)
    if not combinations and not parallel:
        raise SdrrlError(
            f"subsets.combinations and subsets.parallel are both empty for {pair_name(pair)}: "
            "nothing is left to train on"
        )
    # CIT's draw is over all four combinations; a configuration that names its own is an ablation and makes those.
    recipe = Recipe(
        combinations=combinations,
        parallel=parallel,
        code_switch=preset.code_switch and bool(combinations) and config.code_switch.dictionary.name != NO_DICTIONARY,
        draws=preset.draws and combinations == COMBINATIONS,
    )
    if config.translation.name == NO_TRANSLATOR and recipe.needs_translation:
        raise SdrrlError(
            f"translation.name is '{NO_TRANSLATOR}' for {pair_name(pair)}, but its subsets hold translations; set "
            "subsets.combinations to [LL] or [] for it"
        )
    if config.parallel.engine.name == NO_CORPUS and recipe.parallel:
        raise SdrrlError(
            f"parallel.engine.name is '{NO_CORPUS}' for {pair_name(pair)}, but it has the subsets "
            f"{', '.join(recipe.parallel)}; set subsets.parallel to [] for it"
        )
    return recipe


def _ordered(chosen: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in known if name in chosen)
