"""What the suites share: languages in order, data on disk or fetched, and what a data set does not cover."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import sdrrl_nemo.data.engines  # noqa: F401  registers the language identifiers
from sdrrl_nemo.common.fileio import canonical_json
from sdrrl_nemo.data.config import EngineConfig
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, LanguageIdentifier
from sdrrl_nemo.data.text.languages import language
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.readers.held_out_files import HeldOut, first, read_held_out
from sdrrl_nemo.eval.readers.hub import fetch
from sdrrl_nemo.eval.readers.official_files import READERS, NotCovered
from sdrrl_nemo.eval.scorers import bleu
from sdrrl_nemo.eval.task import Entry, Task


def measured(config: BenchmarkConfig) -> list[str]:
    """The source language, then the targets: the paper's tables have both halves."""
    return [config.source_language, *config.languages]


def read(config: BenchmarkConfig, name: str, lang: str, *options: Any) -> Any:
    """The data set's items; fetched first when the configuration allows it and they are not there."""
    fetched(config, name, lang)
    return READERS[name](config.data_dir, lang, *options)


def fetched(config: BenchmarkConfig, name: str, lang: str) -> str:
    """``data_dir``, with the data set's file in it when the configuration allows fetching it."""
    if config.download:
        fetch(name, lang, config.data_dir, config.hub)
    return config.data_dir


def limited(items: Sequence[Any], config: BenchmarkConfig, name: str) -> list[Any]:
    """The first ``limits[name]`` items; all without a limit."""
    return first(items, config.limits.get(name, 0))


def each(prefix: str, languages: Sequence[str], task: Callable[[str], Task]) -> list[Entry]:
    """The task of each language, or its name (``prefix`` and language) with the reason why there is none."""
    out: list[Entry] = []
    for lang in languages:
        try:
            out.append(task(lang))
        except NotCovered as e:
            out.append((f"{prefix}{lang}", str(e)))
    return out


def bleu_options(config: BenchmarkConfig | EvalConfig, lang: str) -> dict[str, str]:
    """How BLEU of translations into ``lang`` is computed: ``tokenize`` and, where it is named, ``spm``."""
    tokenize = bleu.tokeniser(lang, config.bleu_tokenize, config.bleu_spm)
    return {"tokenize": tokenize, **({"spm": config.bleu_spm} if config.bleu_spm and tokenize == bleu.TOKENIZE else {})}


def held_out(config: EvalConfig) -> HeldOut:
    """The held-out rows of the configuration's two languages."""
    return read_held_out(config.data_dir, config.source_language, config.target_language)


def arrow(one: str, other: str) -> str:
    """``English → Portuguese``."""
    return f"{language(one).name} → {language(other).name}"


def side(lang: str, source: str) -> str:
    """Which half of the paper's tables a benchmark in ``lang`` belongs to."""
    return "english" if lang == source else "target"


def identifier(config: EngineConfig) -> LanguageIdentifier:
    """The language identifier of a configuration, made once however many tasks ask for it."""
    return _identifier(config.name, canonical_json(config.options))


@cache
def _identifier(name: str, options: str) -> LanguageIdentifier:
    return LANGUAGE_IDENTIFIERS.create(name, **json.loads(options))
