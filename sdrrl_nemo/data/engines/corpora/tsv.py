"""Parallel corpus from a file of ``source<TAB>target`` lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import PARALLEL_CORPORA, ParallelCorpus, SentencePair
from sdrrl_nemo.data.text.languages import language


@PARALLEL_CORPORA.register("tsv")
class TsvCorpus(ParallelCorpus):
    """UTF-8, one pair a line, first column in ``source``, second in ``target``; blank lines and repeats are skipped."""

    def __init__(self, path: str, source: str, target: str, licence: str = "unstated") -> None:
        self._path = Path(path)
        self._columns = (language(source).code, language(target).code)
        if not self._path.is_file():
            raise SdrrlError(f"parallel corpus 'tsv': {path}: no such file; correct 'path'")
        self.licence = licence

    @property
    def identity(self) -> str:
        return f"tsv/{'-'.join(self._columns)}"

    def files(self, *languages: str) -> Iterable[Path]:
        return [self._path]

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        wanted = (language(source).code, language(target).code)
        if wanted not in (self._columns, self._columns[::-1]):
            raise SdrrlError(
                f"{self._path}: holds {'-'.join(self._columns)}, not {source}-{target}; "
                "correct the options 'source' and 'target' or the path"
            )
        seen: set[SentencePair] = set()
        for pair in self._rows():
            if pair not in seen:
                seen.add(pair)
                yield pair if wanted == self._columns else SentencePair(pair.target, pair.source)

    def _rows(self) -> Iterator[SentencePair]:
        with open(self._path, "rb") as file:
            for n, raw in enumerate(file, 1):
                where = f"{self._path}, line {n}"
                try:
                    line = raw.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
                except UnicodeDecodeError as e:
                    raise SdrrlError(f"{where}: not UTF-8 ({e.reason} at byte {e.start})") from None
                if not line.strip():
                    continue
                cells = [cell.strip() for cell in line.split("\t")]
                if len(cells) != 2 or not all(cells):
                    raise SdrrlError(f"{where}: expected two non-empty columns between one tab, found {len(cells)}")
                yield SentencePair(cells[0], cells[1])
