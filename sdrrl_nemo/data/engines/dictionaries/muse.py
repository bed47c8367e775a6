"""MUSE dictionaries (Conneau et al. 2018): text files of ``word translation`` lines, as Lin et al. 2021 use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import sha256_file
from sdrrl_nemo.data.engines.base import DICTIONARIES, Dictionary
from sdrrl_nemo.data.text.languages import language


@DICTIONARIES.register("muse")
class Muse(Dictionary):
    """``folder`` holds the files under their published names, ``en-pt.txt``; a pair read backwards takes ``pt-en.txt``
    where it is there and turns ``en-pt.txt`` around where it is not.

    A word has one translation a line; words keep the order of the file. A translation equal to its word is kept, as in
    the files (names, numbers).
    """

    licence = "CC-BY-NC-4.0"
    noncommercial = True

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._used: dict[str, str] = {}

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Names and content of the files in the folder."""
        files = sorted(self._folder.glob("*-*.txt"))
        if not files:
            raise SdrrlError(
                f"dictionary 'muse': {self._folder} has no files like en-pt.txt; download the dictionaries of "
                "facebookresearch/MUSE there, or correct 'folder'"
            )
        return "muse/" + ",".join(f"{f.name}={sha256_file(f)[:12]}" for f in files)

    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        a, b = (self._code(x) for x in (source, target))
        straight, turned = self._folder / f"{a}-{b}.txt", self._folder / f"{b}-{a}.txt"
        if not straight.is_file() and not turned.is_file():
            raise SdrrlError(f"dictionary 'muse': neither {straight} nor {turned.name} is there")
        out: dict[str, dict[str, None]] = {}
        backwards = not straight.is_file()
        for line in _lines(turned if backwards else straight):
            word, translation = line[::-1] if backwards else line
            out.setdefault(word.lower(), {})[translation] = None
        return {word: tuple(found) for word, found in out.items()}

    @staticmethod
    def _code(code: str) -> str:
        entry = language(code)
        if entry.muse is None:
            raise SdrrlError(f"dictionary 'muse': MUSE has no dictionary of {entry.name} ({code})")
        return entry.muse


def _lines(path: Path) -> list[tuple[str, str]]:
    out = []
    with open(path, "rb") as f:
        for n, raw in enumerate(f, 1):
            try:
                cells = raw.decode("utf-8-sig" if n == 1 else "utf-8").split()
            except UnicodeDecodeError as e:
                raise SdrrlError(f"{path}, line {n}: not UTF-8 ({e.reason} at byte {e.start})") from None
            if not cells:
                continue
            if len(cells) != 2:
                raise SdrrlError(f"{path}, line {n}: expected a word and its translation, found {len(cells)} words")
            out.append((cells[0], cells[1]))
    if not out:
        raise SdrrlError(f"{path}: no entry in this file")
    return out
