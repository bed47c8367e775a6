"""Parallel sentences from GNOME's user documentation: Mallard pages whose translations keep the tree (itstool)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import PARALLEL_CORPORA, ParallelCorpus, SentencePair
from sdrrl_nemo.data.engines.debian import CACHE, package_root
from sdrrl_nemo.data.text.languages import Language, language
from sdrrl_nemo.data.text.sentence_ends import split_sentences

PACKAGE = "gnome-user-docs"
HELP = "usr/share/help"
VERSION = "43.0-2"
REVISION = 1
_NAMESPACE = re.compile(r"^\{[^}]*\}")
_BLOCK = {"p", "desc"}
_SKIPPED = {"link", "include", "credit", "media", "code", "screen"}
_FINISHED = re.compile(r"[.!?。！？][\"”’»)]*$")

Place = tuple[str | int, ...]


def _blocks(element: ET.Element, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """(place in the tree, text) of every paragraph; places count elements by name, so translations share them."""
    seen: Counter[str] = Counter()
    for child in element:
        tag = _NAMESPACE.sub("", child.tag)
        if tag in _SKIPPED:
            continue
        place = (*path, tag, seen[tag])
        seen[tag] += 1
        if tag not in _BLOCK:
            yield from _blocks(child, place)
        elif not any(_NAMESPACE.sub("", inner.tag) in _SKIPPED - {"link", "code"} for inner in child.iter()):
            text = " ".join("".join(child.itertext()).split())
            if text:
                yield place, text


def read_page(path: Path) -> dict[Place, str]:
    """Paragraphs of one Mallard page by place. SdrrlError names the file when it is not XML."""
    try:
        return dict(_blocks(ET.parse(path).getroot()))
    except (ET.ParseError, OSError, ValueError, LookupError, RecursionError) as e:
        raise SdrrlError(f"{path}: not a readable Mallard page ({e})") from None


@PARALLEL_CORPORA.register("gnome_help")
class GnomeHelp(ParallelCorpus):
    """Single-sentence paragraphs present, translated and finished on both sides; each source and target once.

    ``min_words``/``max_words`` bound the English sentence; pages are read in the order of their names.
    """

    licence = "CC-BY-SA-3.0"

    def __init__(
        self,
        version: str = VERSION,
        cache: str = CACHE,
        folder: str | None = None,
        min_words: int = 4,
        max_words: int = 60,
    ) -> None:
        if not 1 <= min_words <= max_words:
            raise SdrrlError("parallel corpus 'gnome_help': 1 <= min_words <= max_words is needed")
        self._version, self._cache, self._folder = version, cache, folder
        self._words = (min_words, max_words)

    @property
    def identity(self) -> str:
        return f"gnome_help/{'folder' if self._folder else self._version}/r{REVISION}/{self._words}"

    def files(self, *languages: str) -> Iterable[Path]:
        root = self._root()
        locales = dict.fromkeys([root / "C", *(self._locale(root, language(code)) for code in languages)])
        return [page for locale in locales for page in sorted(locale.glob("*/*.page"))]

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        ends = language(source), language(target)
        if source == target:
            raise SdrrlError(f"parallel corpus 'gnome_help': source and target are both '{source}'")
        root = self._root()
        folders = [self._locale(root, end) for end in ends]
        seen: tuple[set[str], set[str]] = (set(), set())
        for page in sorted(p.relative_to(root / "C") for p in (root / "C").glob("*/*.page")):
            for pair in self._page_pairs(root, page, folders):
                if pair.source not in seen[0] and pair.target not in seen[1]:
                    seen[0].add(pair.source)
                    seen[1].add(pair.target)
                    yield pair

    def _root(self) -> Path:
        if self._folder:
            if not (Path(self._folder) / "C").is_dir():
                raise SdrrlError(f"parallel corpus 'gnome_help': {self._folder}/C is missing; correct 'folder'")
            return Path(self._folder)
        return package_root(PACKAGE, self._version, f"{HELP}/C/gnome-help/index.page", self._cache) / HELP

    def _locale(self, root: Path, end: Language) -> Path:
        if end.gnome is None or not (root / end.gnome).is_dir():
            raise SdrrlError(f"parallel corpus 'gnome_help': there is no {end.name} ('{end.code}') translation in it")
        return root / end.gnome

    def _page_pairs(self, root: Path, page: Path, folders: list[Path]) -> Iterator[SentencePair]:
        files = [folder / page for folder in folders]
        if not all(f.is_file() for f in files):
            return
        english = read_page(root / "C" / page)
        left, right = (english if f.parts[len(root.parts)] == "C" else read_page(f) for f in files)
        for place, original in english.items():
            if place not in left or place not in right or not self._sentence(original):
                continue
            pair = SentencePair(left[place], right[place])
            # An untranslated paragraph is the English one, whichever side it stands on.
            untranslated = any(
                text == original for text, folder in zip(pair, folders, strict=True) if folder.name != "C"
            )
            if not untranslated and pair.source != pair.target and all(_one_sentence(text) for text in pair):
                yield pair

    def _sentence(self, english: str) -> bool:
        return self._words[0] <= len(english.split()) <= self._words[1] and _one_sentence(english)


def _one_sentence(text: str) -> bool:
    return bool(_FINISHED.search(text)) and len(split_sentences(text)) == 1 and len(re.findall("[。！？]", text)) <= 1
