"""SDRRL and its baselines (paper, section 4.1) as data recipes: which samples a method trains on, and its loss.

Every method reads the same configuration; only ``method:`` and, for ablations (Table 6), a key or two differ.
docs/methods.md gives the sources and what they leave open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.config import COMBINATIONS, PARALLEL_KINDS, Pair, PreprocessConfig, pair_name


@dataclass(frozen=True)
class Method:
    """What a method does where the configuration says nothing.

    ``subset``: the one subset that holds every sample, so that Eq. 6 becomes Eq. 2; None: one subset a combination.
    ``synth``: see SynthConfig. ``draws``: each question is given one combination at random instead of all of them;
    where the configuration names combinations of its own, all of those are made.
    """

    title: str
    combinations: tuple[str, ...]
    parallel: tuple[str, ...] = ()
    subset: str | None = None
    synth: str = "answers"
    code_switch: bool = False
    answer_language: str = "implicit"
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
    "t_sft": Method("Translate-then-SFT (section 3.1; Chen et al. 2023a)", ("TT",), subset="t_sft"),
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
    """A method with the configuration's own choices put in; the pipeline reads this and nothing else of the method."""

    method: str
    title: str
    combinations: tuple[str, ...]
    parallel: tuple[str, ...]
    subset: str | None
    synth: str
    code_switch: bool
    answer_language: str
    draws: bool
    sample_reduction: str

    @property
    def needs_translation(self) -> bool:
        """Whether training samples hold translated text."""
        return any("T" in combination for combination in self.combinations)

    @property
    def needs_answers_of_the_model(self) -> bool:
        """Whether y_hat is generated."""
        return bool(self.combinations) and self.synth != "answers"

    def combinations_of(self, pair: Pair, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
        """Combinations made for ``pair``: plain source-language samples are the same for every target, so only the
        first pair of a source makes them."""
        first = next(p for p in pairs if p[0] == pair[0])
        shared = self.subset is not None and not self.code_switch and not self.draws and pair != first
        return tuple(c for c in self.combinations if not (shared and c == "LL"))

    def subset_of(self, kind: str, pair: Pair, pairs: tuple[Pair, ...]) -> str:
        """Name of the subset for a combination, ``mt`` or ``comp``: its own for each pair where there are several."""
        if self.subset is not None:
            return self.subset
        return kind if len(pairs) == 1 else f"{kind}.{pair_name(pair)}"

    def subset_names(self, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
        """All subsets in their fixed order: pair by pair, LL TL LT TT mt comp within a pair."""
        kinds = (*self.combinations, *self.parallel)
        return tuple(dict.fromkeys(self.subset_of(kind, pair, pairs) for pair in pairs for kind in kinds))

    def loss(self) -> dict[str, Any]:
        """What training should set, for the manifest of the packed set."""
        return {"sample_reduction": self.sample_reduction, "equation": "2" if self.subset else "6"}


def method(name: str) -> Method:
    """The method of that name; SdrrlError suggests the nearest."""
    if name not in METHODS:
        raise SdrrlError(f"method: unknown method '{name}'{suggest(name, METHODS)}")
    return METHODS[name]


def recipe(config: PreprocessConfig) -> Recipe:
    """The method of ``config`` with the keys that change it; SdrrlError when nothing would be left to train on."""
    preset, subsets = method(config.method), config.subsets
    combinations = preset.combinations if subsets.combinations is None else _ordered(subsets.combinations, COMBINATIONS)
    parallel = preset.parallel if subsets.parallel is None else _ordered(subsets.parallel, PARALLEL_KINDS)
    if not combinations and not parallel:
        raise SdrrlError("subsets.combinations and subsets.parallel are both empty: nothing is left to train on")
    return Recipe(
        method=config.method,
        title=preset.title,
        combinations=combinations,
        parallel=parallel,
        subset=preset.subset,
        synth=config.synth.mode or preset.synth,
        code_switch=preset.code_switch and bool(combinations),
        answer_language=subsets.answer_language or preset.answer_language,
        draws=preset.draws and combinations == COMBINATIONS,
        sample_reduction=preset.sample_reduction,
    )


def _ordered(chosen: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in known if name in chosen)
