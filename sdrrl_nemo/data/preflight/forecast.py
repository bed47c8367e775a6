"""How much work a run will be: rows, calls of each engine, hours by stated rates, bytes on disk.

A forecast is made from the instruction set's size before anything is read through: it takes every record for usable
and every translation for accepted, so it is an upper bound but for the rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sdrrl_nemo.data.chosen_engines import engine_config, optional_checks
from sdrrl_nemo.data.config import NO_CORPUS, NO_TRANSLATOR, InstructionsConfig, Pair, PreprocessConfig
from sdrrl_nemo.data.methods import Plan, plan
from sdrrl_nemo.data.pairs import for_language, for_pair, pair_name, sources_of
from sdrrl_nemo.data.readers import Skipped, read_examples
from sdrrl_nemo.data.stages.ingest import reading


class Rate(NamedTuple):
    """Calls an engine does in a second, at least and at most, and what was measured or assumed."""

    low: float
    high: float
    why: str


GPU = "one A100 or A800; assumed, docs/data_cost.md"
CORES = "two cores; assumed"
RATES = {
    "openai_server": Rate(5, 15, f"7B in vLLM, 200 tokens an answer; {GPU}"),
    "hf": Rate(0.5, 2, f"SmolLM2-135M, 96 tokens; {CORES}"),
    "ctranslate2": Rate(0.3, 1, "SmolLM2-135M, 190 tokens on two cores; docs/results/generation_speed.json"),
    "nemo_checkpoint": Rate(0.5, 2, f"as hf: SmolLM2-135M, 96 tokens; {CORES}"),
    "nllb_ctranslate2": Rate(9, 29, f"NLLB-3.3B fp16, beam 4, 87 tokens a text; {GPU}"),
    "nllb_hf": Rate(2, 7, "a quarter of nllb_ctranslate2; assumed"),
    "apertium": Rate(50, 150, "2,484 questions and answers in 24 s on two busy cores"),
    "bergamot": Rate(20, 60, CORES),
    "llm_translate": Rate(5, 15, f"as openai_server; {GPU}"),
    "cometkiwi": Rate(150, 600, f"560M in fp16; {GPU}"),
    "xcomet": Rate(25, 100, f"3.5B in bf16, a sixth of cometkiwi; {GPU}"),
    "metricx": Rate(50, 200, f"metricx-24-hybrid-xl's encoder of 1.7B in bf16, a third of cometkiwi; {GPU}"),
    "use": Rate(40, 120, CORES),
    "cld3": Rate(3000, 10000, CORES),
    "fasttext_lid": Rate(10000, 50000, CORES),
}
"""Engine -> its rate. An engine that is not named here gets no time."""
BYTES_A_ROW = 400
"""What a row holds beside its texts: keys, names, counts."""
BYTES_A_TOKEN = 7 + 4 + 1
"""A token id in a JSON row, in the packed set, and its place in the mask."""
CHARACTERS_A_TOKEN = 3.0
"""Of Llama's tokenizer in English and Latin-script languages; other scripts have less, and more bytes a character."""
TRANSLATED = 2.5
"""Bytes of a row with its translation, in those of the row without: other scripts take two or three bytes a letter."""


class Work(NamedTuple):
    """Calls of one engine for one language or pair."""

    role: str
    name: str
    scope: str
    calls: int

    def hours(self) -> tuple[float, float] | None:
        """At least and at most, with one copy of the engine; None where no rate is known."""
        rate = RATES.get(self.name)
        return rate and (self.calls / rate.high / 3600, self.calls / rate.low / 3600)


@dataclass(frozen=True)
class Forecast:
    """``rows``: source language -> questions for training; ``samples`` of all subsets together."""

    rows: dict[str, int]
    work: list[Work]
    samples: int
    disk_bytes: int


class _Set(NamedTuple):
    """Records of an instruction set and their mean length in bytes."""

    records: int
    mean_bytes: float


def forecast(config: PreprocessConfig) -> Forecast:
    """Read through the instruction sets and multiply. SdrrlError where a set cannot be read."""
    todo = plan(config)
    sets = {source: _measured(config, for_language(config, source).instructions) for source in sources_of(todo.pairs)}
    rows = {source: _training(for_language(config, source).instructions, found) for source, found in sets.items()}
    works, samples, size = [], 0, 0.0
    for source, questions in rows.items():
        asked = {"answers": 0, "sample": (questions + 1) // 2, "both": questions}[todo.synth]
        if todo.asks_the_model(source):
            works.append(Work("generator", for_language(config, source).generation.engine.name, source, asked))
        size += (sets[source].records + 2 * questions) * (sets[source].mean_bytes + BYTES_A_ROW)
    for pair in todo.pairs:
        synth = rows[pair[0]] * (2 if todo.synth == "both" else 1) * todo.uses_questions(pair[0])
        works += _of_pair(config, todo, pair, synth)
        made, written = _samples(config, todo, pair, synth, sets[pair[0]])
        samples, size = samples + made, size + written
    return Forecast(rows, works, samples, round(size))


def _measured(config: PreprocessConfig, section: InstructionsConfig) -> _Set:
    if section.path.startswith("hub:"):
        return _Set(section.limit or 52_002, 600.0)  # it may have to be fetched first; Alpaca stands for it
    records, length = 0, 0
    for found in read_examples(section.path, reading(section, config.turns)):
        if not isinstance(found, Skipped):
            records += 1
            length += len((found.question + found.answer).encode("utf-8", "replace"))
            length += sum(len((q + a).encode("utf-8", "replace")) for q, a in found.earlier)
    return _Set(records, length / max(records, 1))


def _training(section: InstructionsConfig, found: _Set) -> int:
    left = max(found.records - section.held_out, 0)
    return left if section.limit is None else min(left, section.limit)


def _of_pair(config: PreprocessConfig, todo: Plan, pair: Pair, synth: int) -> Iterator[Work]:
    """Question and answer of every row and of every held-out one are translated, scored and identified."""
    c = for_pair(config, pair)
    if c.translation.name == NO_TRANSLATOR:
        return
    texts = 2 * (synth * todo.recipes[pair].needs_translation + c.instructions.held_out)
    for role in ("translator", "quality", "language_id", *optional_checks(c)):
        yield Work(role, engine_config(c, role).name, pair_name(pair), texts)


def _samples(config: PreprocessConfig, todo: Plan, pair: Pair, synth: int, found: _Set) -> tuple[int, float]:
    """Samples of a pair, and the bytes that its stages and its part of the final files take."""
    c, recipe = for_pair(config, pair), todo.recipes[pair]
    row = found.mean_bytes + BYTES_A_ROW
    made = synth * (c.cit.repeat if recipe.draws else len(todo.combinations_of(pair)))
    pairs = c.parallel.train_pairs if c.parallel.engine.name != NO_CORPUS else 0
    made += pairs * sum({"mt": 2, "comp": 1}[kind] for kind in todo.parallel_of(pair))
    more = len(optional_checks(c))
    held_out = c.instructions.held_out * (c.translation.name != NO_TRANSLATOR)
    judged = (5 + more) * synth * recipe.needs_translation + (4 + more) * held_out
    # A sample is written by subsets, code-switch, order, tokenize and as the final text.
    tokens = found.mean_bytes / CHARACTERS_A_TOKEN * BYTES_A_TOKEN
    return made, judged * row * TRANSLATED + made * (5 * row * TRANSLATED / 2 + tokens)


def gigabytes(size: float) -> str:
    """``1.5 GB``, or ``12 MB`` below a gigabyte."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
