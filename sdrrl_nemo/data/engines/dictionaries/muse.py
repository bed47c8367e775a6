"""MUSE dictionaries (Conneau et al. 2018): text files of ``word translation`` lines, as Lin et al. 2021 use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import DICTIONARIES, Dictionary
from sdrrl_nemo.data.text.languages import language

REVISION = 2
"""Changes whenever the code here may read another dictionary from the same files."""
MOST_SKIPPED = 0.5
"""A file of which more lines than this share are no word and its translation is no MUSE dictionary."""


@DICTIONARIES.register("muse")
class Muse(Dictionary):
    """``folder`` holds the files under their published names, ``en-pt.txt``; a pair read backwards takes ``pt-en.txt``
    where it is there and turns ``en-pt.txt`` around where it is not.

    MUSE pairs English with 44 languages, and German, Spanish, French, Italian and Portuguese with each other. With
    ``pivot: eng`` a pair that has no file goes through that language: French-Indonesian by ``fr-en.txt`` and
    ``en-id.txt``, as mRASP joins its dictionaries, so a word gets the translations of all its translations.

    A word has one translation a line; words keep the order of the file. A translation equal to its word is kept, as in
    the files (names, numbers). Lines that are no word and its translation (phrases, odd spaces, broken UTF-8) are left
    out and counted in ``skipped``.
    """

    licence = "CC-BY-NC-4.0"
    noncommercial = True

    def __init__(self, folder: str, pivot: str = "") -> None:
        self._folder, self._pivot = Path(folder), language(pivot).code if pivot else ""
        self.skipped = Counter()

    @property
    def identity(self) -> str:
        return f"muse/r{REVISION}/{self._pivot}"

    def files(self, *languages: str) -> Iterable[Path]:
        return [self._located(*step)[0] for step in self._route(*languages)]

    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        first, *rest = [self._read(*step) for step in self._route(source, target)]
        out = first
        for following in rest:
            out = {word: _unique(t for m in found for t in following.get(m.lower(), ())) for word, found in out.items()}
        return {word: tuple(found) for word, found in out.items() if found}

    def _route(self, source: str, target: str) -> list[tuple[str, str]]:
        """The pair, or two pairs by way of the pivot; SdrrlError where MUSE has no file for one of them."""
        direct = [(source, target)]
        through = [(source, self._pivot), (self._pivot, target)]
        if not self._pivot or self._pivot in (source, target) or self._file(source, target):
            return direct
        return through

    def _file(self, source: str, target: str) -> tuple[Path, bool] | None:
        """The file of a pair, and whether it must be turned around; None where there is none."""
        a, b = (self._code(x) for x in (source, target))
        straight, turned = self._folder / f"{a}-{b}.txt", self._folder / f"{b}-{a}.txt"
        if straight.is_file():
            return straight, False
        return (turned, True) if turned.is_file() else None

    def _located(self, source: str, target: str) -> tuple[Path, bool]:
        found = self._file(source, target)
        if found is None:
            a, b = (self._code(x) for x in (source, target))
            hint = (
                "" if self._pivot or "eng" in (source, target) else ", or go through English with the option pivot: eng"
            )
            raise SdrrlError(
                f"dictionary 'muse': neither {self._folder / f'{a}-{b}.txt'} nor {b}-{a}.txt is there; download the "
                f"dictionaries of facebookresearch/MUSE there, correct 'folder'{hint}"
            )
        return found

    def _read(self, source: str, target: str) -> dict[str, dict[str, None]]:
        path, backwards = self._located(source, target)
        out: dict[str, dict[str, None]] = {}
        lines, self.skipped[path.name] = _lines(path)
        for line in lines:
            word, translation = line[::-1] if backwards else line
            out.setdefault(word.lower(), {})[translation] = None
        return out

    @staticmethod
    def _code(code: str) -> str:
        entry = language(code)
        if entry.muse is None:
            raise SdrrlError(
                f"dictionary 'muse': MUSE has no dictionary of {entry.name} ({code}); choose another for its pairs "
                "under by_pair, or code_switch.dictionary.name=none"
            )
        return entry.muse


def _unique(words: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(words)


def _lines(path: Path) -> tuple[list[tuple[str, str]], int]:
    """(word, translation) of each line that is no more, and how many others there are."""
    out: list[tuple[str, str]] = []
    skipped, first = 0, ""
    with open(path, "rb") as f:
        for n, raw in enumerate(f, 1):
            cells = raw.decode("utf-8-sig" if n == 1 else "utf-8", "replace").split()
            if len(cells) == 2 and "\ufffd" not in "".join(cells):
                out.append((cells[0], cells[1]))
            elif cells:
                skipped += 1
                first = first or f"line {n} is '{' '.join(cells)[:60]}'"
    if skipped > MOST_SKIPPED * (skipped + len(out)):
        raise SdrrlError(
            f"{path}: {skipped} of {skipped + len(out)} lines are no word and its translation ({first}); is this a "
            "MUSE dictionary?"
        )
    if not out:
        raise SdrrlError(f"{path}: no entry in this file")
    return out, skipped
