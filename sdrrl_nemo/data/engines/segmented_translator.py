"""Any translator made safe for whole answers: segments, stand-ins, long sentences, batches."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import distribution_version
from sdrrl_nemo.data.engines.base import Translator
from sdrrl_nemo.data.text.segmentation.placeholders import FORMS, Masked
from sdrrl_nemo.data.text.segmentation.protect import Sentence, protect

REVISION = 2
"""Changes whenever the code here gives other segments or joins them otherwise."""


class SegmentedTranslator(Translator):
    """Wraps a translator so that line structure, code, tables, addresses and long texts survive it.

    ``max_units``: the longest segment, in what the translator's ``units`` counts; None takes the translator's own
    ``max_units``, and no limit where it has none either. ``forms``: stand-ins for protected spans, in the order tried.
    A text with a segment that the engine answers with '' is '' as a whole, as ``Translator.translate`` asks.
    ``counts`` has totals since the translator was made: texts, segments, unique, masked, retried (a stand-in was
    damaged), cut (no form survived), incomplete (texts).
    """

    def __init__(self, translator: Translator, max_units: int | None = None, forms: Sequence[str] = FORMS) -> None:
        limit = max_units if max_units is not None else getattr(translator, "max_units", None)
        if limit is not None and limit < 1:
            raise SdrrlError(f"translation: max_units is {limit}; give 1 or more, or leave it out")
        if not forms or any(form.count("{}") != 1 for form in forms):
            raise SdrrlError(
                f"translation: forms are {list(forms)}; give at least one, each with one {{}} for a number"
            )
        self._translator = translator
        self._limit = limit
        self._forms = tuple(forms)
        self.max_units = None  # texts of any length are taken
        self.counts: Counter[str] = Counter()

    @property
    def wrapped(self) -> Translator:
        """The translator inside."""
        return self._translator

    @property
    def licence(self) -> str:  # type: ignore[override]
        """Licence of the translator inside; the segmentation adds no data of its own."""
        return self._translator.licence

    @property
    def noncommercial(self) -> bool:  # type: ignore[override]
        """As the translator inside says."""
        return bool(getattr(self._translator, "noncommercial", False))

    @property
    def reranked(self) -> int:  # type: ignore[override]
        """Segments of which the translator inside chose another than its first translation."""
        return self._translator.reranked

    @functools.cached_property
    def identity(self) -> str:
        packages = ",".join(f"{p}-{distribution_version(p, 'data')}" for p in ("icu4py", "sentencex"))
        options = (
            f"max_units={self._limit},forms={'|'.join(self._forms)},markdown-it-py-{metadata.version('markdown-it-py')}"
        )
        return f"segmented/r{REVISION}({options},{packages})/{self._translator.identity}"

    def files(self, *languages: str) -> Iterable[Path]:
        """The files of the translator inside."""
        return self._translator.files(*languages)

    def check(self, *languages: str) -> None:
        """What the translator inside checks."""
        self._translator.check(*languages)

    def try_out(self) -> None:
        """What the translator inside tries."""
        self._translator.try_out()

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        def count(text: str) -> int:
            return self._translator.units([text], source)[0]

        protected = [protect(text, source, self._limit, count) for text in texts]
        sentences = [sentence for whole in protected for sentence in whole.sentences]
        lines = _Lines(self._translator, source, target)
        done = self._sentences(sentences, lines)
        out, at = [], 0
        for whole in protected:
            own = done[at : at + len(whole.sentences)]
            at += len(own)
            out.append(whole.assemble(own, target if target != source else None) if all(own) else "")
            self.incomplete += not all(own)
        self.counts.update(texts=len(texts), segments=len(sentences), unique=len(lines.known))
        self.counts["incomplete"] = self.incomplete
        return out

    def _sentences(self, sentences: Sequence[Sentence], lines: _Lines) -> list[str]:
        """Each sentence with its spans: by the first form whose stand-ins survive, else cut at the spans."""
        done: list[str] = [""] * len(sentences)
        pending = list(range(len(sentences)))
        for attempt, form in enumerate(self._forms):
            masked: dict[int, Masked] = {i: sentences[i].masked(form) for i in pending}
            self.counts.update({"retried" if attempt else "masked": sum(1 for m in masked.values() if m.originals)})
            lines.fetch(m.text for m in masked.values())
            for i, m in masked.items():
                restored = m.restore(sentences[i].tidy(lines.known[m.text]))
                done[i] = sentences[i].finished(restored) if restored else ""
            pending = [i for i in pending if not done[i] and sentences[i].spans]
        self.counts.update(cut=len(pending))
        parts = {i: sentences[i].parts() for i in pending}
        lines.fetch(part for cut in parts.values() for part, kept in cut if not kept)
        for i, cut in parts.items():
            out = [part if kept else sentences[i].tidy(lines.known[part]) for part, kept in cut]
            if all(new or not part for new, (part, _) in zip(out, cut, strict=True)):
                done[i] = sentences[i].finished("".join(out))
        return done


class _Lines:
    """Each different line is translated once a call, shortest first, so that a batch holds lines of one length."""

    def __init__(self, translator: Translator, source: str, target: str) -> None:
        self.known: dict[str, str] = {}
        self._translator, self._source, self._target = translator, source, target

    def fetch(self, lines: Iterable[str]) -> None:
        new = sorted({line for line in lines if line not in self.known}, key=lambda line: (len(line), line))
        if not new:
            return
        out = self._translator.translate(new, self._source, self._target)
        if len(out) != len(new):
            raise SdrrlError(
                f"translator '{self._translator.identity}' gave {len(out)} translations for {len(new)} texts; "
                f"it must give one each"
            )
        self.known.update(zip(new, out, strict=True))
