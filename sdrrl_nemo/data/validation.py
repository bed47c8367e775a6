"""What types cannot say of a preprocessing configuration, checked before anything is read."""

from __future__ import annotations

import importlib
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.config import (
    ANSWER_LANGUAGE,
    COMBINATIONS,
    PACK_BY,
    PARALLEL_KINDS,
    ROUND_TRIP_METRICS,
    SUPERVISE,
    SWITCH_TARGET,
    SYNTH_MODES,
    SYSTEM_TURNS,
    UNUSABLE_SCORES,
    Pair,
    PreprocessConfig,
)
from sdrrl_nemo.data.execution.config import validate_execution
from sdrrl_nemo.data.filters.duplicates import SIDES
from sdrrl_nemo.data.methods import plan
from sdrrl_nemo.data.pairs import for_language, for_pair, language_pairs, pair_name, sources_of
from sdrrl_nemo.data.readers import FORMATS
from sdrrl_nemo.data.text import thinking
from sdrrl_nemo.data.text.languages import code_meant
from sdrrl_nemo.data.text.templates import INSTRUCTION_LANGUAGES, SPLITS


def validate(config: PreprocessConfig, files: bool = True) -> None:
    """Check what types cannot say; SdrrlError names the key. ``files``: the instruction sets must be there too."""
    pairs = language_pairs(config)
    _unused_overrides(config, pairs)
    validate_execution(config.execution)
    _choice("synth.mode", config.synth.mode, SYNTH_MODES)
    _choice("turns.system", config.turns.system, SYSTEM_TURNS)
    _choice("turns.supervise", config.turns.supervise, SUPERVISE)
    _at_least("turns.most", config.turns.most, 1)
    _probability("cit.cross_probability", config.cit.cross_probability)
    _at_least("cit.repeat", config.cit.repeat, 1)
    _at_least("shard_size", config.shard_size, 1)
    _at_least("packing.seq_length", config.packing.seq_length, 8)
    _at_least("packing.buffer", config.packing.buffer, 1)
    _choice("packing.by", config.packing.by, PACK_BY)
    if not 0 <= config.packing.validation_fraction < 1:
        raise SdrrlError(
            f"packing.validation_fraction: must be at least 0 and under 1, is {config.packing.validation_fraction}"
        )
    for source in sources_of(pairs):
        _validate_source(for_language(config, source), files)
    for pair in pairs:
        _validate_pair(for_pair(config, pair))
    plan(config)


def _unused_overrides(config: PreprocessConfig, pairs: tuple[Pair, ...]) -> None:
    """A key of ``by_language`` or ``by_pair`` that matches nothing is a typing error, unless it is a pattern."""
    for code in config.by_language:
        if code not in sources_of(pairs):
            hint = f"; use '{meant}'" if (meant := code_meant(code)) else suggest(code, sources_of(pairs))
            raise SdrrlError(f"by_language: '{code}' is no source language of this run{hint}")
    names = [pair_name(pair) for pair in pairs]
    for pattern in config.by_pair:
        if not set("*?[") & set(pattern) and pattern not in names:
            meant_pair = _pair_meant(pattern, names)
            hint = f"; use '{meant_pair}'" if meant_pair else suggest(pattern, names)
            raise SdrrlError(f"by_pair: '{pattern}' is no pair of this run{hint}")


def _pair_meant(name: str, pairs: list[str]) -> str | None:
    """The pair of the run that another spelling means: ``en-pt``, ``eng_por``, ``en-pt-BR``, ``English-Portuguese``."""
    for at in (place for place, c in enumerate(name) if c in "-_>"):
        ends = code_meant(name[:at]), code_meant(name[at + 1 :])
        if f"{ends[0]}-{ends[1]}" in pairs:
            return f"{ends[0]}-{ends[1]}"
    return None


def _validate_source(config: PreprocessConfig, files: bool) -> None:
    _at_least("generation.shard_size", config.generation.shard_size, 1)
    _at_least("instructions.held_out", config.instructions.held_out, 1)
    _at_least("instructions.limit", config.instructions.limit, 1)
    _at_least("instructions.max_characters", config.instructions.max_characters, 1)
    _probability("instructions.max_rejected", config.instructions.max_rejected)
    _choice("instructions.thinking", config.instructions.thinking, thinking.MODES)
    _choice("generation.thinking", config.generation.thinking, thinking.MODES)
    _choice("instructions.format", config.instructions.format, FORMATS)
    if files and not config.instructions.path.startswith("hub:") and not Path(config.instructions.path).exists():
        raise SdrrlError(f"{config.instructions.path}: no such file; set instructions.path to an instruction set")


def _validate_pair(config: PreprocessConfig) -> None:
    _choice("subsets.answer_language", config.subsets.answer_language, ANSWER_LANGUAGE)
    _choice("subsets.open_answer_language", config.subsets.open_answer_language, ANSWER_LANGUAGE)
    _choices("subsets.combinations", config.subsets.combinations, COMBINATIONS)
    _choices("subsets.parallel", config.subsets.parallel, PARALLEL_KINDS)
    _choice("code_switch.target_questions", config.code_switch.target_questions, SWITCH_TARGET)
    _probability("code_switch.probability", config.code_switch.probability)
    _at_least("code_switch.most_pairs", config.code_switch.most_pairs, 1)
    _at_least("parallel.train_pairs", config.parallel.train_pairs, 1)
    _at_least("parallel.held_out_pairs", config.parallel.held_out_pairs, 1)
    _choice("parallel.instruction_language", config.parallel.instruction_language, INSTRUCTION_LANGUAGES)
    _choice("duplicates.sides", config.duplicates.sides, (*SIDES, "none"))
    _choice("parallel.split", config.parallel.split, SPLITS)
    _choice("llm_judge.unusable", config.llm_judge.unusable, UNUSABLE_SCORES)
    if not 0 <= config.llm_judge.minimum <= 10:
        raise SdrrlError(f"llm_judge.minimum: {config.llm_judge.minimum} is not between 0 and 10")
    _choice("round_trip.metric", config.round_trip.metric, ROUND_TRIP_METRICS)
    _probability("round_trip.minimum", config.round_trip.minimum)
    _at_least("round_trip.min_letters", config.round_trip.min_letters, 0)
    if config.round_trip.engine.candidates != 1:
        raise SdrrlError("round_trip.engine.candidates: a back translation is taken as it comes; leave it at 1")
    _at_least("translation.candidates", config.translation.candidates, 1)
    if config.translation.candidates > 1 and config.quality.engine.name in ("", "none"):
        raise SdrrlError(
            f"translation.candidates: {config.translation.candidates} candidates need a quality estimator that chooses "
            "among them; set quality.engine.name, or candidates to 1"
        )


def _choice(key: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise SdrrlError(f"{key}: unknown value '{value}'{suggest(value, known)}")


def _choices(key: str, values: list[str] | None, known: tuple[str, ...]) -> None:
    for value in values or ():
        _choice(key, value, known)
    if values is not None and len(set(values)) != len(values):
        raise SdrrlError(f"{key}: a name is given twice in {list(values)}")


def _at_least(key: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise SdrrlError(f"{key}: {value} is too small, it must be at least {least}")


def _probability(key: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise SdrrlError(f"{key}: {value} is not between 0 and 1")


def import_plugins(modules: list[str]) -> None:
    """Import the modules of ``plugins``; SdrrlError names one that cannot be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise SdrrlError(f"plugins: module '{name}' cannot be imported ({e})") from None
