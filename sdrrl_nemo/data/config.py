"""The preprocessing configuration: one typed dataclass per YAML section (``configs/data/*.yaml``)."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from sdrrl_nemo.common.config import override
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.execution.config import ExecutionConfig, validate_execution
from sdrrl_nemo.data.filters.duplicates import SIDES
from sdrrl_nemo.data.languages import language
from sdrrl_nemo.data.readers import FORMATS
from sdrrl_nemo.data.templates import INSTRUCTION_LANGUAGES, SPLITS

Pair = tuple[str, str]
"""(source language, target language), ISO 639-3."""

SYNTH_MODES = ("sample", "both", "answers")
SWITCH_TARGET = ("inverse", "dictionary", "none")
ANSWER_LANGUAGE = ("implicit", "request", "always")
COMBINATIONS = ("LL", "TL", "LT", "TT")
PARALLEL_KINDS = ("mt", "comp")

BY_LANGUAGE = ("instructions", "generation")
BY_PAIR = ("translation", "quality", "filters", "language_id", "duplicates", "subsets", "code_switch", "parallel")
"""Sections that ``by_language`` and ``by_pair`` may change."""
NO_TRANSLATOR = "none"
"""``translation.name`` of a pair that no translator serves: no TL, LT, TT, and no held-out questions for it."""
NO_CORPUS = "none"
"""``parallel.engine.name`` of a pair that no parallel corpus serves: no mt, comp, and no held-out pairs for it."""


@dataclass
class EngineConfig:
    """A registered backend by name, with its own options."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class InstructionsConfig:
    """Instruction set D and its split."""

    path: str = MISSING
    """``.json``, ``.jsonl``, ``.parquet``, a directory of ``datasets.save_to_disk``, or ``hub:NAME``."""
    format: str = "auto"
    """``alpaca``, ``sharegpt``, ``messages``, or ``auto``: told by the fields of the first record."""
    fields: dict[str, str] = field(default_factory=dict)
    """Other names of the format's fields, such as {instruction: prompt, output: response}."""
    split: str = "train"
    """Part of a data set that has parts."""
    drop_empty: bool = False
    """Reject an empty question or answer instead of failing."""
    licence: str = "unstated"
    """SPDX id, for the data card."""
    held_out: int = 40
    """Questions set aside for evaluation, chosen by content key."""
    limit: int | None = None
    """At most this many training questions, chosen by content key; None: all."""


@dataclass
class GenerationConfig:
    """y_hat = M(x): the base model answers the training questions."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    shard_size: int = 32
    """Questions given to the engine in one call, between two restart points. An engine that batches by length sorts
    within a call."""
    filters: list[EngineConfig] = field(default_factory=list)
    """Filters that look at the answer alone (``repetition``, ``length``)."""


@dataclass
class SynthConfig:
    """D_synth (Eq. 4)."""

    mode: str | None = None
    """``sample``: y or y_hat with probability 1/2 each; ``both``: the union; ``answers``: y alone (D itself, row 3 of
    Table 6). None: what the method does."""


@dataclass
class TranslationConfig(EngineConfig):
    """The machine translation system T."""

    segment: bool = True
    """Translate sentence by sentence around what must not change (code, addresses, tables); False: whole texts."""
    segmentation: dict[str, Any] = field(default_factory=dict)
    """Options of the segmenter."""


@dataclass
class QualityConfig:
    """Translations that score below ``tau`` are rejected; tau means something for one engine only."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    tau: float = MISSING


@dataclass
class DuplicatesConfig:
    """Translated questions that say what another row's question says."""

    sides: str = "both"
    """Compare the ``source``, the ``target``, ``both``, or ``none``: leave the step out."""
    min_characters: int = 20
    """Shorter questions are not compared."""


@dataclass
class LanguageIdConfig:
    """Translations that are not in the target language are rejected."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    min_letters: int = 20
    """Shorter texts are kept: identifiers guess on a word or two."""
    min_probability: float = 0.0
    """Another language is believed from this probability on."""


@dataclass
class SubsetsConfig:
    """What a method trains on; None: the method's own choice (sdrrl_nemo/data/methods.py)."""

    combinations: list[str] | None = None
    """Languages of question and answer: of LL, TL, LT, TT (section 3.2.2)."""
    parallel: list[str] | None = None
    """Of mt and comp (section 3.2.4)."""
    answer_language: str | None = None
    """``implicit``: questions do not say which language to answer in (the paper's text, read literally).
    ``request``: those of TL and LT end with a line that does; ``always``: all of them; docs/preprocessing.md."""


@dataclass
class CrossLingualConfig:
    """Draws of the method ``cit`` (docs/methods.md)."""

    cross_probability: float = 0.5
    """Chance that the answer is in the other language than the question."""
    repeat: int = 1
    """Draws per question."""


@dataclass
class CodeSwitchConfig:
    """Code-switching of questions (Eq. 5)."""

    dictionary: EngineConfig = field(default_factory=EngineConfig)
    probability: float = 0.15
    target_questions: str = "inverse"
    """Dictionary for questions in the target language: ``inverse`` of the source-to-target one, the engine's own
    target-to-source ``dictionary``, or ``none`` to leave them alone."""


@dataclass
class ParallelConfig:
    """External parallel corpus P for D_mt and D_comp; the held-out pairs are for evaluation."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    train_pairs: int = 1000
    held_out_pairs: int = 200
    instruction_language: str = "english"
    """Language of Table 1's instructions: ``english``, as in the paper, or ``target``."""
    split: str = "auto"
    """Where D_comp may cut a sentence: after ``words``, ``characters``, or ``auto`` (characters where a language
    writes no spaces)."""


@dataclass
class PackingConfig:
    """Packs of whole samples, at most ``seq_length`` tokens each."""

    seq_length: int = 512
    buffer: int = 100_000
    """Samples looked at together by the packer."""
    validation_fraction: float = 0.0
    """Share of the questions and sentence pairs whose samples go to a second packed set, ``validation``, for early
    stopping; all samples of one question go together, so no text is in both."""


@dataclass
class PreprocessConfig:
    """Everything that ``tools/preprocess_sdrrl.py`` reads."""

    method: str = "sdrrl"
    """A name of sdrrl_nemo/data/methods.py: sdrrl or a baseline of section 4.1."""
    source_languages: list[str] = field(default_factory=lambda: ["eng"])
    target_languages: list[str] = field(default_factory=list)
    """With ``source_languages``: every source with every target."""
    pairs: list[list[str]] = field(default_factory=list)
    """``[[source, target], ...]`` in place of the two lists above, where not every pair is wanted."""
    seed: int = 1234
    output_dir: str = MISSING
    model: str = MISSING
    """Hugging Face folder whose tokenizer and chat template the samples are made with."""
    shard_size: int = 256
    """Rows between two restart points in the stages that only compute."""
    plugins: list[str] = field(default_factory=list)
    """Python modules to import first; they may register engines and filters of their own."""
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    filters: list[EngineConfig] = field(default_factory=list)
    language_id: LanguageIdConfig = field(default_factory=LanguageIdConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    subsets: SubsetsConfig = field(default_factory=SubsetsConfig)
    cit: CrossLingualConfig = field(default_factory=CrossLingualConfig)
    code_switch: CodeSwitchConfig = field(default_factory=CodeSwitchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    by_language: dict[str, Any] = field(default_factory=dict)
    """Source language -> changes to ``instructions`` and ``generation`` for it."""
    by_pair: dict[str, Any] = field(default_factory=dict)
    """Pair ("eng-jpn", or a pattern: "*-jpn") -> changes to the sections from ``translation`` to ``parallel``."""


def pair_name(pair: Pair) -> str:
    """``eng-por``: how files, subsets and ``by_pair`` name a pair."""
    return f"{pair[0]}-{pair[1]}"


def language_pairs(config: PreprocessConfig) -> tuple[Pair, ...]:
    """The pairs of the run in order; SdrrlError for an unknown language, a repetition, or no pair at all."""
    if config.pairs and config.target_languages:
        raise SdrrlError("pairs and target_languages are both set; give one of them")
    if not config.pairs and not config.target_languages:
        raise SdrrlError("missing required key 'target_languages' (or 'pairs')")
    for given in config.pairs:
        if len(given) != 2:
            raise SdrrlError(f"pairs: {list(given)} is not [source language, target language]")
    product = [(s, t) for s in config.source_languages for t in config.target_languages]
    pairs = [(s, t) for s, t in config.pairs] or product
    key = "pairs" if config.pairs else "target_languages"
    for source, target in pairs:
        language(source)
        language(target)
        if source == target:
            raise SdrrlError(f"{key}: '{target}' is the source language too")
        if pairs.count((source, target)) > 1:
            raise SdrrlError(f"{key}: {pair_name((source, target))} is named twice")
    if not pairs:
        raise SdrrlError("source_languages: the list is empty; name at least one language")
    return tuple(pairs)


def sources_of(pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    """The source languages of ``pairs``, each once, in order."""
    return tuple(dict.fromkeys(source for source, _ in pairs))


def for_language(config: PreprocessConfig, source: str) -> PreprocessConfig:
    """The configuration with the changes of ``by_language`` for one source language."""
    patch = config.by_language.get(source)
    return _changed(config, patch, f"by_language.{source}", BY_LANGUAGE) if patch else config


def for_pair(config: PreprocessConfig, pair: Pair) -> PreprocessConfig:
    """The configuration for one pair: changes by source language first, then by pair, in the order of the YAML."""
    config = for_language(config, pair[0])
    for pattern, patch in config.by_pair.items():
        if fnmatchcase(pair_name(pair), pattern):
            config = _changed(config, patch, f"by_pair.{pattern}", BY_PAIR)
    return config


def _changed(config: PreprocessConfig, patch: Any, where: str, sections: tuple[str, ...]) -> PreprocessConfig:
    if not isinstance(patch, dict):
        raise SdrrlError(f"{where}: expected a mapping of sections ({', '.join(sections)})")
    for key in patch:
        if key not in sections:
            raise SdrrlError(f"{where}: section '{key}' cannot be changed here{suggest(str(key), sections)}")
    return override(_without_old_options(config, patch), patch, where)


def _without_old_options(section: Any, patch: dict[str, Any]) -> Any:
    """A copy of ``section`` where every engine that ``patch`` renames has lost its options: they were another's."""
    changes: dict[str, Any] = {}
    for key, value in patch.items():
        inner = getattr(section, key, None)
        if isinstance(value, dict) and dataclasses.is_dataclass(inner):
            if isinstance(inner, EngineConfig) and value.get("name", inner.name) != inner.name:
                inner = dataclasses.replace(inner, options={})
            changes[key] = _without_old_options(inner, value)
    return dataclasses.replace(section, **changes)


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


def validate(config: PreprocessConfig, files: bool = True) -> None:
    """Check what types cannot say; SdrrlError names the key. ``files``: the instruction sets must be there too."""
    from sdrrl_nemo.data.methods import plan

    pairs = language_pairs(config)
    _unused_overrides(config, pairs)
    validate_execution(config.execution)
    _choice("synth.mode", config.synth.mode, SYNTH_MODES)
    _probability("cit.cross_probability", config.cit.cross_probability)
    _at_least("cit.repeat", config.cit.repeat, 1)
    _at_least("shard_size", config.shard_size, 1)
    _at_least("packing.seq_length", config.packing.seq_length, 8)
    _at_least("packing.buffer", config.packing.buffer, 1)
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
            raise SdrrlError(
                f"by_language: '{code}' is no source language of this run{suggest(code, sources_of(pairs))}"
            )
    names = [pair_name(pair) for pair in pairs]
    for pattern in config.by_pair:
        if not set("*?[") & set(pattern) and pattern not in names:
            raise SdrrlError(f"by_pair: '{pattern}' is no pair of this run{suggest(pattern, names)}")


def _validate_source(config: PreprocessConfig, files: bool) -> None:
    _at_least("generation.shard_size", config.generation.shard_size, 1)
    _at_least("instructions.held_out", config.instructions.held_out, 1)
    _at_least("instructions.limit", config.instructions.limit, 1)
    _choice("instructions.format", config.instructions.format, FORMATS)
    if files and not config.instructions.path.startswith("hub:") and not Path(config.instructions.path).exists():
        raise SdrrlError(f"{config.instructions.path}: no such file; set instructions.path to an instruction set")


def _validate_pair(config: PreprocessConfig) -> None:
    _choice("subsets.answer_language", config.subsets.answer_language, ANSWER_LANGUAGE)
    _choices("subsets.combinations", config.subsets.combinations, COMBINATIONS)
    _choices("subsets.parallel", config.subsets.parallel, PARALLEL_KINDS)
    _choice("code_switch.target_questions", config.code_switch.target_questions, SWITCH_TARGET)
    _probability("code_switch.probability", config.code_switch.probability)
    _at_least("parallel.train_pairs", config.parallel.train_pairs, 1)
    _at_least("parallel.held_out_pairs", config.parallel.held_out_pairs, 1)
    _choice("parallel.instruction_language", config.parallel.instruction_language, INSTRUCTION_LANGUAGES)
    _choice("duplicates.sides", config.duplicates.sides, (*SIDES, "none"))
    _choice("parallel.split", config.parallel.split, SPLITS)


def import_plugins(modules: list[str]) -> None:
    """Import the modules of ``plugins``; SdrrlError names one that cannot be imported."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise SdrrlError(f"plugins: module '{name}' cannot be imported ({e})") from None


def settings(config: PreprocessConfig) -> dict[str, Any]:
    """The configuration as plain data without what cannot change a byte of the result."""
    plain = dataclasses.asdict(config)
    del plain["output_dir"], plain["execution"]
    return plain
