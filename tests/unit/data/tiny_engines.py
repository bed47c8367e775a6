"""Small deterministic engines for tests of the pipeline; a plugin: ``plugins: [tests.unit.data.tiny_engines]``.

The target language is Portuguese by name only: a "translation" marks every word, which the identifier recognises.
``delay`` slows an engine down, so that a test can kill it at work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

from sdrrl_nemo.data.engines.base import (
    DICTIONARIES,
    GENERATORS,
    LANGUAGE_IDENTIFIERS,
    PARALLEL_CORPORA,
    QUALITY_ESTIMATORS,
    TRANSLATORS,
    Dictionary,
    Generator,
    LanguageIdentifier,
    ParallelCorpus,
    QualityEstimator,
    Translator,
)
from sdrrl_nemo.data.rows import Message

MARK = "ão"


def number_of(text: str) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@GENERATORS.register("tiny")
class TinyGenerator(Generator):
    """Answers with words of the question; its text depends on the whole batch, as padded generation may."""

    licence = "CC0-1.0"

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    @property
    def identity(self) -> str:
        return "tiny-generator/1"

    def generate(self, questions: Sequence[str]) -> list[str]:
        time.sleep(self.delay * len(questions))
        batch = number_of("|".join(questions)) % 1000
        return [f"Generated answer {batch} about {' '.join(q.split()[-3:])}." for q in questions]


@GENERATORS.register("tiny_talker")
class TinyTalker(TinyGenerator):
    """Takes conversations: an answer tells how many turns it was shown and names the answer before it."""

    def converse(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        out = []
        for turns in conversations:
            before = [m["content"] for m in turns if m["role"] == "assistant"]
            out.append(f"Answer after {len(turns)} turns, number {number_of(before[-1]) if before else 'none'}.")
        return out


@TRANSLATORS.register("tiny")
class TinyTranslator(Translator):
    """Appends a mark to every word; line structure is kept."""

    licence = "CC0-1.0"

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        time.sleep(self.delay * len(texts))
        return ["\n".join(" ".join(w + MARK for w in line.split()) for line in t.split("\n")) for t in texts]


@TRANSLATORS.register("tiny_several")
class TinySeveral(TinyTranslator):
    """Three translations of a text, of which `TinyTaste` likes the last."""

    most_candidates = 3

    def candidates(self, texts: Sequence[str], source: str, target: str, count: int) -> list[list[str]]:
        out = self.translate(texts, source, target)
        return [[text, f"{text} [good]", f"{text} [best]"][:count] for text in out]


@QUALITY_ESTIMATORS.register("tiny_taste")
class TinyTaste(QualityEstimator):
    """1 for what calls itself best, else 1/2."""

    licence = "CC0-1.0"

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [1.0 if "[best]" in text else 0.5 for text in translations]


@QUALITY_ESTIMATORS.register("tiny")
class TinyEstimator(QualityEstimator):
    """A pseudo-random score in [0, 1) by the source text."""

    licence = "CC0-1.0"

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [(number_of(s) % 1000) / 1000 for s in sources]


@LANGUAGE_IDENTIFIERS.register("tiny")
class TinyIdentifier(LanguageIdentifier):
    """Portuguese is what carries the mark; every 17th text is taken for Spanish, which the table of languages lacks."""

    licence = "CC0-1.0"

    def identify(self, texts: Sequence[str]) -> list[tuple[str | None, float]]:
        return [(None, 0.9) if number_of(t) % 17 == 0 else ("por" if MARK in t else "eng", 0.99) for t in texts]


@DICTIONARIES.register("tiny")
class TinyDictionary(Dictionary):
    """Two translations for a few words."""

    licence = "CC0-1.0"

    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        return {"question": ["pergunta", "questão"], "number": ["número"], "about": ["sobre"], "the": [f"the{MARK}"]}


@PARALLEL_CORPORA.register("tiny")
class TinyCorpus(ParallelCorpus):
    """``size`` numbered pairs."""

    licence = "CC0-1.0"

    def __init__(self, size: int = 60) -> None:
        self.size = size

    def pairs(self, source: str, target: str) -> Iterator[tuple[str, str]]:
        for i in range(self.size):
            yield f"This is sentence {i} of many.", f"Esta é a frase {i} de muitas."
