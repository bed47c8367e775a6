"""The preprocessing configuration: one typed dataclass per YAML section (``configs/data/*.yaml``)."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.languages import language

SYNTH_MODES = ("sample", "both")
SWITCH_TARGET = ("inverse", "dictionary", "none")


@dataclass
class EngineConfig:
    """A registered backend by name, with its own options."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class InstructionsConfig:
    """Instruction set D (Alpaca JSONL) and its split."""

    path: str = MISSING
    held_out: int = 40
    """Questions set aside for evaluation, chosen by content key."""
    limit: int | None = None
    """At most this many training questions, chosen by content key; None: all."""


@dataclass
class GenerationConfig:
    """y_hat = M(x): the base model answers the training questions."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    batch_size: int = 16
    """Questions answered together."""
    shard_size: int = 32
    """Questions answered between two restart points, a multiple of ``batch_size``."""
    filters: list[EngineConfig] = field(default_factory=list)
    """Filters that look at the answer alone (``repetition``, ``length``)."""


@dataclass
class SynthConfig:
    """D_synth (Eq. 4). ``sample``: y or y_hat with probability 1/2 each; ``both``: the union."""

    mode: str = "sample"


@dataclass
class QualityConfig:
    """Translations that score below ``tau`` are rejected; tau means something for one engine only."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    tau: float = MISSING


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
    """LL, TL, LT and TT (section 3.2.2)."""

    answer_language: str = "implicit"
    """``implicit``: TL and LT questions do not say which language to answer in (the paper's text, read literally).
    ``request``: they end with a line that does; docs/preprocessing.md has what it changes."""


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


@dataclass
class PackingConfig:
    """Packs of whole samples, at most ``seq_length`` tokens each."""

    seq_length: int = 512
    buffer: int = 100_000
    """Samples looked at together by the packer."""


@dataclass
class PreprocessConfig:
    """Everything that ``tools/preprocess_sdrrl.py`` reads."""

    source_language: str = "eng"
    target_language: str = MISSING
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
    translation: EngineConfig = field(default_factory=EngineConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    filters: list[EngineConfig] = field(default_factory=list)
    language_id: LanguageIdConfig = field(default_factory=LanguageIdConfig)
    subsets: SubsetsConfig = field(default_factory=SubsetsConfig)
    code_switch: CodeSwitchConfig = field(default_factory=CodeSwitchConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)


def _choice(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SdrrlError(f"{key}: unknown value '{value}'{suggest(value, known)}")


def _at_least(key: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise SdrrlError(f"{key}: {value} is too small, it must be at least {least}")


def validate(config: PreprocessConfig) -> None:
    """Check what types cannot say; SdrrlError names the key."""
    language(config.source_language)
    language(config.target_language)
    if config.source_language == config.target_language:
        raise SdrrlError(f"target_language: '{config.target_language}' is the source language too")
    _choice("synth.mode", config.synth.mode, SYNTH_MODES)
    _choice("subsets.answer_language", config.subsets.answer_language, ("implicit", "request"))
    _choice("code_switch.target_questions", config.code_switch.target_questions, SWITCH_TARGET)
    if not 0.0 <= config.code_switch.probability <= 1.0:
        raise SdrrlError(f"code_switch.probability: {config.code_switch.probability} is not between 0 and 1")
    _at_least("shard_size", config.shard_size, 1)
    _at_least("generation.batch_size", config.generation.batch_size, 1)
    if config.generation.shard_size < 1 or config.generation.shard_size % config.generation.batch_size:
        raise SdrrlError(
            f"generation.shard_size: {config.generation.shard_size} is not a multiple of generation.batch_size "
            f"({config.generation.batch_size})"
        )
    _at_least("instructions.held_out", config.instructions.held_out, 1)
    _at_least("instructions.limit", config.instructions.limit, 1)
    _at_least("parallel.train_pairs", config.parallel.train_pairs, 1)
    _at_least("parallel.held_out_pairs", config.parallel.held_out_pairs, 1)
    _at_least("packing.seq_length", config.packing.seq_length, 8)
    _at_least("packing.buffer", config.packing.buffer, 1)
    if not Path(config.instructions.path).is_file():
        raise SdrrlError(f"{config.instructions.path}: no such file; set instructions.path to an Alpaca JSONL file")


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
    del plain["output_dir"]
    return plain
