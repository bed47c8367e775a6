"""Apertium: translation by dictionaries and rules, quick, open and visibly noisy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import TRANSLATORS, Translator
from sdrrl_nemo.data.engines.debian import CACHE
from sdrrl_nemo.data.engines.translate.apertium.installed import Pipeline, pipeline
from sdrrl_nemo.data.engines.translate.apertium.stream import run
from sdrrl_nemo.data.engines.translate.markup import around, fold_typography, mask, pieces, protected_spans
from sdrrl_nemo.data.text.languages import language

REVISION = 1
"""Changes whenever the code here gives another translation of the same text."""
TEXTS, CHARACTERS = 1000, 200_000
"""At most so many texts, and about so many characters, in one start of the programs."""
PROBE = "water"


@TRANSLATORS.register("apertium")
class ApertiumTranslator(Translator):
    """Sentence by sentence; lines, list markers, code and addresses are kept. Unknown words stay as they are.

    The programs of a pair's mode file are started in a row, once for many sentences. A sentence at which one of them
    ends, or is not done within ``timeout_s``, comes back as '' and costs no other. ``folder`` stands for ``/`` of a
    system with Apertium; without it the system's own is taken where it has the pair, else Debian's packages, unpacked
    into ``cache``.
    """

    licence = "GPL-2.0-only (rules and dictionaries); programs: GPL-2.0-or-later, GPL-3.0-or-later"

    def __init__(self, folder: str | None = None, cache: str = CACHE, timeout_s: float = 60.0) -> None:
        if not timeout_s > 0:
            raise SdrrlError(f"translator 'apertium': timeout_s is {timeout_s}; give more than 0 seconds")
        self._folder, self._cache, self._timeout_s = folder, cache, timeout_s

    @property
    def identity(self) -> str:
        return f"apertium/r{REVISION}"

    def files(self, *languages: str) -> Iterable[Path]:
        """The mode file, the rules and dictionaries that it names, the programs and their own libraries."""
        return self._pipeline(*languages).files()

    def check(self, *languages: str) -> None:
        """Whether the programs start and translate a word, which they do within a second."""
        super().check(*languages)
        self._require_working(self._pipeline(*languages))

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        cut = [pieces(text) for text in texts]
        sentences = list(dict.fromkeys(p.text for parts in cut for p in parts if p.translate))
        done = self._around_spans(sentences, self._pipeline(source, target))
        out = []
        for parts in cut:
            whole = all(done[p.text] for p in parts if p.translate)
            out.append("".join(done[p.text] if p.translate else p.text for p in parts) if whole else "")
            self.incomplete += not whole
        return out

    @cached_property
    def _pipelines(self) -> dict[tuple[str, str], Pipeline]:
        return {}

    def _pipeline(self, source: str, target: str) -> Pipeline:
        pair = language(source).code, language(target).code
        if pair not in self._pipelines:
            self._pipelines[pair] = pipeline(*pair, self._folder, self._cache)
        return self._pipelines[pair]

    def _around_spans(self, sentences: Sequence[str], chosen: Pipeline) -> dict[str, str]:
        """Each sentence with its code, addresses and formulas: by stand-ins, else cut at them."""
        folded = [fold_typography(sentence) for sentence in sentences]
        spans = [protected_spans(sentence, lambda character: True) for sentence in folded]
        masked = [mask(sentence, own) for sentence, own in zip(folded, spans, strict=True)]
        lines = self._lines([m.text for m in masked], chosen)
        restored = [m.restore(lines[m.text]) for m in masked]
        cut = {n: list(around(folded[n], spans[n])) for n, text in enumerate(restored) if text is None}
        lines |= self._lines([p.text for parts in cut.values() for p in parts if p.translate], chosen)
        for n, parts in cut.items():
            whole = all(lines[p.text] for p in parts if p.translate)
            restored[n] = "".join(lines[p.text] if p.translate else p.text for p in parts) if whole else ""
        return {sentence: text or "" for sentence, text in zip(sentences, restored, strict=True)}

    def _lines(self, texts: Iterable[str], chosen: Pipeline) -> dict[str, str]:
        """Line -> its translation; '' for one that breaks the programs."""
        found: dict[str, str] = {}
        for batch in _batches(dict.fromkeys(texts)):
            found |= self._together(batch, chosen)
        return found

    def _together(self, texts: list[str], chosen: Pipeline) -> dict[str, str]:
        """Translate lines in one go; where some do not come back, those again by halves, down to a single one."""
        ran = run(chosen.commands, chosen.libraries, dict(enumerate(texts)), self._timeout_s)
        found = {texts[number]: text for number, text in ran.found.items() if number < len(texts)}
        left = [text for text in texts if text not in found]
        if left and not found:
            self._require_working(chosen)
        if left == texts and len(texts) == 1:
            return {texts[0]: ""}
        middle = -(-len(left) // 2)
        for half in (left[:middle], left[middle:]):
            if half:
                found |= self._together(half, chosen)
        return found

    def _require_working(self, chosen: Pipeline) -> None:
        """SdrrlError with what a program says, where even a word does not come back."""
        ran = run(chosen.commands, chosen.libraries, {0: PROBE}, self._timeout_s)
        if not ran.found.get(0):
            said = ran.problem or "they gave nothing back"
            raise SdrrlError(
                f"translator 'apertium': the programs of {chosen.mode} translate nothing ({said}); install Apertium "
                "and the pair anew (on Debian: apt-get install --reinstall apertium-eng-spa)"
            )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lines for one start of the programs each."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= CHARACTERS or len(batch) == TEXTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
