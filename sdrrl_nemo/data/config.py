"""The preprocessing configuration: one typed dataclass per YAML section (``configs/data/*.yaml``)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from sdrrl_nemo.data.execution.config import ExecutionConfig
from sdrrl_nemo.data.text.chat_template import TemplateConfig

Pair = tuple[str, str]
"""(source language, target language), ISO 639-3."""

SYNTH_MODES = ("sample", "both", "answers")
SWITCH_TARGET = ("inverse", "dictionary", "none")
ANSWER_LANGUAGE = ("implicit", "request", "always")
SYSTEM_TURNS = ("keep", "drop")
SUPERVISE = ("all", "last")
UNUSABLE_SCORES = ("keep", "reject")
ROUND_TRIP_METRICS = ("chrf",)
PACK_BY = ("mixed", "subset")
COMBINATIONS = ("LL", "TL", "LT", "TT")
PARALLEL_KINDS = ("mt", "comp")

BY_LANGUAGE = ("instructions", "generation")
BY_PAIR = (
    *("translation", "quality", "filters", "language_id", "round_trip", "llm_judge"),
    *("duplicates", "subsets", "code_switch", "parallel"),
)
"""Sections that ``by_language`` and ``by_pair`` may change."""
NO_TRANSLATOR = "none"
"""``translation.name`` of a pair that no translator serves: no TL, LT, TT, and no held-out questions for it."""
NO_CORPUS = "none"
"""``parallel.engine.name`` of a pair that no parallel corpus serves: no mt, comp, and no held-out pairs for it."""
NO_DICTIONARY = "none"
"""``code_switch.dictionary.name`` of a pair that no dictionary serves: its questions stay as they are."""


LATER = {"later": True}
"""Marks a key that came to the configuration later, for `without_later`."""


@dataclass
class EngineConfig:
    """A registered backend by name, with its own options."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class InstructionsConfig:
    """Instruction set D and its split."""

    path: str = MISSING
    """``.json``, ``.jsonl``, ``.csv`` (each also with ``.gz`` or ``.zst`` behind it), ``.parquet``, a directory of
    ``datasets.save_to_disk``, or ``hub:NAME``."""
    format: str = "auto"
    """``alpaca``, ``sharegpt``, ``messages``, or ``auto``: told by the fields of the first record."""
    fields: dict[str, str] = field(default_factory=dict)
    """Other names of the format's fields, such as {instruction: prompt, output: response}."""
    split: str = "train"
    """Part of a data set that has parts."""
    drop_empty: bool = False
    """Leave out records with an empty question or answer, however many they are."""
    max_rejected: float = field(default=0.1, metadata=LATER)
    """The run stops when more than this share of the records cannot be used (broken lines, null or a number for a text,
    tool calls, ...); repeats, and what ``drop_empty`` leaves out, do not count."""
    max_characters: int = field(default=1_000_000, metadata=LATER)
    """A record whose texts together are longer is rejected."""
    thinking: str = field(default="strip", metadata=LATER)
    """What becomes of ``<think>…</think>`` in y: ``strip`` takes it out, ``keep`` leaves it, ``forbid`` rejects the
    record."""
    weight: str = field(default="weight", metadata=LATER)
    """The field of a record that says what its samples count in the mean of their subset, relative to others: a
    positive number; a record without it counts 1. Empty: no field is looked at."""
    licence: str = "unstated"
    """SPDX id, for the data card."""
    held_out: int = 40
    """Questions set aside for evaluation, chosen by content key."""
    limit: int | None = None
    """At most this many training questions, chosen by content key; None: all."""


@dataclass
class TurnsConfig:
    """Conversations of several turns."""

    system: str = "keep"
    """A system turn stays before the conversation, untranslated (``keep``), or is left out (``drop``)."""
    most: int | None = None
    """At most this many exchanges of a conversation, the first ones; None: all."""
    supervise: str = "all"
    """Every answer of a conversation carries loss (``all``), or its last one alone (``last``)."""


@dataclass
class GenerationConfig:
    """y_hat = M(x): the base model answers the training questions."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    shard_size: int = 32
    """Questions given to the engine in one call, between two restart points. An engine that batches by length sorts
    within a call."""
    filters: list[EngineConfig] = field(default_factory=list)
    """Filters that look at the answer alone (``repetition``, ``length``), or with its question (``echo``)."""
    thinking: str = field(default="strip", metadata=LATER)
    """The same of y_hat, where the model reasons before it answers; the filters see what is left."""


@dataclass
class SynthConfig:
    """D_synth (Eq. 4)."""

    mode: str | None = None
    """``sample``: y or y_hat with probability 1/2 each; ``both``: the union; ``answers``: y alone (D itself, row 3 of
    Table 6). None: what the method does."""
    filters: list[EngineConfig] = field(default_factory=list, metadata=LATER)
    """Filters of the answers y and y_hat with their questions (``echo``); a row that one rejects is left out."""


@dataclass
class TranslationConfig(EngineConfig):
    """The machine translation system T."""

    segment: bool = True
    """Translate sentence by sentence around what must not change (code, addresses, tables); False: whole texts."""
    segmentation: dict[str, Any] = field(default_factory=dict)
    """Options of the segmenter."""
    candidates: int = field(default=1, metadata=LATER)
    """Translations that the engine gives of each segment, of which the one is kept that ``quality.engine`` scores
    highest; 1: the engine's own choice. For nllb_ctranslate2 and nllb_hf, with at least so many ``beams``."""


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
class RoundTripConfig:
    """Translations that do not come back: translated into the source language again, they differ too much from it."""

    engine: TranslationConfig = field(default_factory=lambda: TranslationConfig(name=""))
    """The translator back, with the options of ``translation`` but ``candidates``; an empty name: no round trip."""
    metric: str = "chrf"
    """How source and back translation are compared: ``chrf``, sacreBLEU's sentence chrF2 in [0, 1]."""
    minimum: float = 0.4
    """A translation whose back translation is less like its source is rejected."""
    min_letters: int = 20
    """Shorter texts are kept: of a word or two a synonym is another text."""


@dataclass
class LlmJudgeConfig:
    """Translations that a language model scores too low."""

    engine: EngineConfig = field(default_factory=lambda: EngineConfig(name=""))
    """``openai_judge``; an empty name: no judge."""
    minimum: float = 7.0
    """A translation with a lower score, of 0 to 10, is rejected."""
    unusable: str = "keep"
    """Where the model gives no usable score: ``keep`` the translation, or ``reject`` it."""


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
    open_answer_language: str = field(default="implicit", metadata=LATER)
    """The same for the methods that leave it open: a base file says it here, where it overrides no method."""


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
    most_pairs: int | None = field(default=None, metadata=LATER)
    """Only the first so many pairs of a word and its translation, in the dictionary's order; None: all. mRASP's script
    takes 2,000 of each MUSE file (docs/methods.md)."""


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
    by: str = field(default="mixed", metadata=LATER)
    """``mixed``: one packed set, whose packs hold samples of any subset. ``subset``: a set for each subset and pair,
    which training may draw from as often as it wants (`data.blend` of training), with ``blend.json`` and
    ``blend.txt`` beside them; each is written in a pass of its own over the samples."""


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
    templates: TemplateConfig = field(default_factory=TemplateConfig, metadata=LATER)
    shard_size: int = 256
    """Rows between two restart points in the stages that only compute."""
    plugins: list[str] = field(default_factory=list)
    """Python modules to import first; they may register engines and filters of their own."""
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    turns: TurnsConfig = field(default_factory=TurnsConfig, metadata=LATER)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    filters: list[EngineConfig] = field(default_factory=list)
    language_id: LanguageIdConfig = field(default_factory=LanguageIdConfig)
    round_trip: RoundTripConfig = field(default_factory=RoundTripConfig, metadata=LATER)
    llm_judge: LlmJudgeConfig = field(default_factory=LlmJudgeConfig, metadata=LATER)
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


def settings(config: PreprocessConfig) -> dict[str, Any]:
    """The configuration as plain data without what cannot change a byte of the result."""
    plain = dataclasses.asdict(config)
    del plain["output_dir"], plain["execution"]
    return plain


def without_later(section: Any) -> dict[str, Any]:
    """A section, or the whole configuration, as plain data without the keys marked `LATER` that hold their default: for
    fingerprints, which thereby stay what they were before those keys came, and so do finished stages."""
    plain = dataclasses.asdict(section)
    _prune(section, plain)
    return plain


def _prune(section: Any, plain: dict[str, Any]) -> None:
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if "later" in f.metadata and value == default:
            del plain[f.name]
        elif dataclasses.is_dataclass(value):
            _prune(value, plain[f.name])
