"""Base classes and registries of every pluggable engine. Languages are ISO 639-3 codes ('eng', 'por').

Engines are deterministic: the same inputs in the same batch give the same outputs. Each names its licence,
which is shown at start and kept in the data card.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.engines.contents import contents
from sdrrl_nemo.data.rows import Message


class Engine(ABC):  # noqa: B024  each role adds its own abstract method
    """What every engine says of itself.

    An engine holds its options and loads what they name on first use, in a ``cached_property``: pickled, it leaves
    the loaded parts behind, and the worker that receives it loads its own.
    """

    licence: str = "unstated"
    """SPDX id of weights or data, or a sentence when the publisher states none."""
    noncommercial: bool = False
    """Whether that licence forbids commercial use."""

    @property
    def identity(self) -> str:
        """Name, version and options that change whenever outputs may change, but for what `files` hold; part of the
        stage fingerprint."""
        return type(self).__name__

    def files(self, *languages: str) -> Iterable[Path]:
        """The files whose bytes an output may depend on, in a stable order; a folder stands for all files below it.

        ``languages``: source and target of the pair, for translators, dictionaries and corpora; none for the others.
        Their bytes are part of the stage fingerprint, so that an edited file is never met with an old result. Files of
        installed packages are named by the package's version in `identity`. SdrrlError where one is missing.
        """
        return ()

    def check(self, *languages: str) -> None:
        """Find out within a second or two whether the engine can serve ``languages``: source and target of a pair, for
        a generator the source, for a language identifier the target. Called before the first stage; SdrrlError says
        what is missing. By default: whether its files are there.
        """
        for file in self.files(*languages):
            if not file.exists():
                raise SdrrlError(f"{file}: no such file")

    def try_out(self) -> None:  # noqa: B027  most engines have nothing to try
        """What only a first call can tell, on the machine that will work: a server answers, a device is there, an
        estimator scores. Called once before the first stage; SdrrlError says what is wrong."""

    def __getstate__(self) -> dict[str, Any]:
        def loaded(name: str) -> bool:
            return name != "identity" and isinstance(getattr(type(self), name, None), cached_property)

        return {name: value for name, value in self.__dict__.items() if not loaded(name)}


def fingerprint_of(engine: Engine, *languages: str) -> str:
    """What a stage's fingerprint says of its engine: `identity`, and what the engine's files for ``languages`` hold."""
    files = list(engine.files(*languages))
    return f"{engine.identity}@{contents(files)}" if files else engine.identity


CUT = "cut at the token limit"
"""Why most answers are unfinished."""


@dataclass(frozen=True)
class Answer:
    """One generated answer and the ``tokens`` it took. ``finished``: whether the model ended it itself; None where the
    engine does not say. ``reason``: why it is unfinished, in words that statistics count by."""

    text: str
    finished: bool | None
    tokens: int
    reason: str = CUT


class Generator(Engine):
    """The model itself answering questions: y_hat = M(x) (paper, section 3.2.1)."""

    @abstractmethod
    def generate(self, questions: Sequence[str]) -> list[str]:
        """One answer per question; the chat template is the generator's business."""

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """The same, and whether each was finished, where the engine knows."""
        return [Answer(text, None, 0) for text in self.generate(questions)]

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """:meth:`converse`, and whether each was finished, where the engine knows."""
        return [Answer(text, None, 0) for text in self.converse(conversations)]

    def settled(self, answer: Answer) -> str:
        """What is kept of an answer; '' where an unfinished one is dropped."""
        return answer.text

    def converse(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """The next answer of each conversation, which ends with a question. SdrrlError where the engine takes single
        questions alone and a conversation has more before its question; engines that take more say so themselves."""
        for messages in conversations:
            if [m["role"] for m in messages] != ["user"]:
                raise SdrrlError(
                    f"generator '{type(self).__name__}' takes one question at a time, and a conversation has a system "
                    "turn or earlier turns before it; choose hf, ctranslate2, openai_server or "
                    "nemo_checkpoint as generation.engine, or set turns.system=drop and turns.most=1"
                )
        return self.generate([messages[0]["content"] for messages in conversations])


class Translator(Engine):
    """The machine translation system T of the paper."""

    max_units: int | None = None
    """Longest line the engine takes, in its own units (tokens); None: no limit is known."""
    incomplete: int = 0
    """Texts answered with '' since the engine was made because their translation did not end within its bound."""
    reranked: int = 0
    """Texts since the engine was made for which another than its first translation was chosen (best_of.py)."""

    @property
    def most_candidates(self) -> int:
        """Most translations of one text that :meth:`candidates` gives."""
        return 1

    @abstractmethod
    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """One translation per text; line structure is kept. SdrrlError when the pair is not served.

        A translation that is known to be incomplete (cut at the output bound) comes back as '', never cut, so that the
        stage drops it as empty; whoever joins parts must make the whole '' when one part is. A line longer than
        ``max_units`` is an SdrrlError, never truncated.
        """

    def candidates(self, texts: Sequence[str], source: str, target: str, count: int) -> list[list[str]]:
        """``count`` translations of each text, the likeliest first, each as :meth:`translate` gives one. SdrrlError
        where the engine gives fewer; see ``most_candidates``."""
        if count > self.most_candidates:
            raise SdrrlError(f"translator '{type(self).__name__}' gives {self.most_candidates} translations a text")
        return [[text] for text in self.translate(texts, source, target)]

    def units(self, texts: Sequence[str], source: str) -> list[int]:
        """Length of each text in the units of ``max_units``; without a limit, characters."""
        return [len(text) for text in texts]


Languages = tuple[str, str]
"""Of a text and of its translation, ISO 639-3."""


class Assessment(NamedTuple):
    """An estimate of quality, and what it was made of where the engine judges a text by its segments."""

    score: float
    """What tau is compared with."""
    mean: float | None = None
    """Mean of the segments' scores, weighted by the length of the source."""
    minimum: float | None = None
    """The worst segment's score."""
    segments: int = 1


class QualityEstimator(Engine):
    """Reference-free translation quality; the threshold tau is meaningful per engine only."""

    languages: frozenset[str] | None = None
    """The only languages whose texts its scores mean something for; None: no limit is known."""

    @abstractmethod
    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        """One score per pair, higher is better."""

    def assess(self, sources: Sequence[str], translations: Sequence[str], languages: Languages) -> list[Assessment]:
        """The same with its parts; ``languages`` say how texts are cut into sentences."""
        return [Assessment(float(score)) for score in self.score(sources, translations)]

    def try_out(self) -> None:
        """Scores one pair."""
        scores = self.score(["Water boils at 100 degrees."], ["Water boils at 100 degrees."])
        if len(scores) != 1 or not math.isfinite(scores[0]):
            raise SdrrlError(f"gives {list(scores)} for one pair of texts, where one finite score is needed")


class TranslationJudge(Engine):
    """A language model that is asked how good a translation is."""

    @abstractmethod
    def rate(self, sources: Sequence[str], translations: Sequence[str], languages: Languages) -> list[float | None]:
        """A score from 0 to 10 for each pair; None where the model gave none that can be used."""


class Identified(NamedTuple):
    """The language of a text: its ISO 639-3 code, None where no language fits, and the probability in [0, 1]."""

    code: str | None
    probability: float


class LanguageIdentifier(Engine):
    """Language of a text."""

    languages: frozenset[str] | None = None
    """The languages that it can tell; None: not known."""

    @abstractmethod
    def identify(self, texts: Sequence[str]) -> list[Identified]:
        """The language of each text."""

    def check(self, *languages: str) -> None:
        """Whether it knows the languages, as far as it says which it knows."""
        super().check(*languages)
        if self.languages is not None and (unknown := [code for code in languages if code not in self.languages]):
            raise SdrrlError(
                f"does not know {', '.join(unknown)}, so every translation would be rejected as off-target"
            )


class Dictionary(Engine):
    """Bilingual dictionary for code-switching (Eq. 5)."""

    skipped: Counter[str]
    """File -> its entries that cannot be used (phrases, broken lines), of the files read so far. An engine that counts
    none need not have it."""

    @abstractmethod
    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        """Lower-cased source token -> its translations, in the file's order."""

    def check(self, *languages: str) -> None:
        """Whether it has entries for the pair."""
        super().check(*languages)
        if not self.entries(*languages):
            raise SdrrlError(f"has no entry for {'-'.join(languages)}")


class SentencePair(NamedTuple):
    """A sentence in the source language and its translation in the target language."""

    source: str
    target: str


class ParallelCorpus(Engine):
    """External parallel corpus P (paper, section 3.2.4)."""

    @abstractmethod
    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        """The sentence pairs, duplicates removed, in a stable order."""


GENERATORS: Registry[Generator] = Registry("generator")
TRANSLATORS: Registry[Translator] = Registry("translator")
QUALITY_ESTIMATORS: Registry[QualityEstimator] = Registry("quality estimator")
LLM_JUDGES: Registry[TranslationJudge] = Registry("LLM judge")
LANGUAGE_IDENTIFIERS: Registry[LanguageIdentifier] = Registry("language identifier")
DICTIONARIES: Registry[Dictionary] = Registry("dictionary")
PARALLEL_CORPORA: Registry[ParallelCorpus] = Registry("parallel corpus")
