"""FreeDict dictionaries in DICT format (``.index`` + ``.dict.dz``) from Debian's ``dict-freedict-XXX-YYY``."""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import DICTIONARIES, Dictionary
from sdrrl_nemo.data.engines.debian import CACHE, package_root
from sdrrl_nemo.data.text.languages import language

VERSION = "2022.04.21-1"
WIKDICT_VERSION = "2022.12.07-2"
WIKDICT = {"bul", "fin", "ind", "jpn", "nor"}
"""FreeDict ids of dictionaries that Debian builds from WikDict, in a package of another version."""

REVISION = 1
LONGEST_NUMBER = 10
"""Base-64 digits of an offset: 60 bits."""
_BASE64 = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_SPDX = {"GPL-2+": "GPL-2.0-or-later", "GPL-3+": "GPL-3.0-or-later", "GPL-2": "GPL-2.0-only", "GPL-3": "GPL-3.0-only"}
_PRONUNCIATION = re.compile(r"\s/[^/]*/")
_BRACKETS = re.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)|\{[^}]*\}")
_SENSE = re.compile(r"^\s*(?:[IVX]+\.\s+)?(?:<[^>]*>\s*)?(?:\d+[.)]\s+)?")
_OPEN_SENSE = re.compile(r"\s\d+\.$")  # WikDict ends a line with the number of the gloss that follows
_STRESS = re.compile("(?<=[\u0400-\u04ff])\u0301")  # Bulgarian dictionaries mark stress, text does not
_TOKEN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def _number(text: str, where: str) -> int:
    """DICT's base-64 number (most significant digit first)."""
    value = 0
    if len(text) > LONGEST_NUMBER:
        raise SdrrlError(f"{where}: a number of {len(text)} digits is no place in a file; the index is damaged")
    for c in text:
        if c not in _BASE64:
            raise SdrrlError(f"{where}: '{text}' is no base-64 number; the index is damaged")
        value = value * 64 + _BASE64[c]
    return value


def data_of(index: Path) -> Path:
    """The file of articles that belongs to an index."""
    return index.with_name(index.name.removesuffix(".index") + ".dict.dz")


def read_articles(index: Path) -> Iterator[str]:
    """Articles of a dictionary in file order, each once, without the ``00database`` entries."""
    data_file = data_of(index)
    file = data_file
    try:
        data = gzip.decompress(data_file.read_bytes())
        file = index
        lines = index.read_text(encoding="utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
        raise SdrrlError(f"{file}: dictionary cannot be read ({e})") from None
    places: set[tuple[int, int]] = set()
    for n, line in enumerate(lines, 1):
        where = f"{index}, line {n}"
        fields = line.split("\t")
        if len(fields) < 3:
            raise SdrrlError(f"{where}: expected word, offset and length between tabs")
        if fields[0].startswith(("00database", "00-database")):
            continue
        start, size = _number(fields[1], where), _number(fields[2], where)
        if start + size > len(data):
            raise SdrrlError(f"{where}: the article lies beyond the end of {data_file.name}; the files do not match")
        places.add((start, size))
    for start, size in sorted(places):
        try:
            yield data[start : start + size].decode("utf-8")
        except UnicodeDecodeError as e:
            raise SdrrlError(f"{data_file}: the article at byte {start} is not UTF-8 ({e.reason})") from None


def parse_article(article: str) -> tuple[list[str], list[str]]:
    """(headwords, translations in order) of one article.

    First line: headwords, then pronunciation between slashes and grammar in brackets. Translations stand in the next
    line and in those with a sense number, separated by commas or semicolons; the other lines are English glosses
    (WikDict), examples or notes, and are left out.
    """
    head, *body = article.strip("\n").split("\n")
    words = [_clean(w) for w in re.split(r"[,;]", _PRONUNCIATION.split(" " + head)[0])]
    found: list[str] = []
    for place, line in enumerate(body):
        sense = _SENSE.match(line)
        text = _STRESS.sub("", _OPEN_SENSE.sub("", line[sense.end() if sense else 0 :])).strip()
        numbered = bool(sense and sense.group().strip())
        if not text or (place and not numbered) or text[0] in "\"'“„:-" or "/" in text:
            continue
        found += [_clean(t) for t in re.split(r"[,;]", _BRACKETS.sub(" ", text))]
    return [w for w in words if w], [t for t in found if t]


def _clean(text: str) -> str:
    return " ".join(_BRACKETS.sub(" ", text).split()).strip(" .")


def stated_licence(copyright_file: Path, pair: str) -> str:
    """SPDX id of ``pair`` (``eng-por``) in the package's machine-readable copyright file."""
    if not copyright_file.is_file():
        return "GPL, version unstated: the package's copyright file is missing"
    for paragraph in copyright_file.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        if re.search(rf"^Files:.*\b{re.escape(pair)}/", paragraph, re.MULTILINE):
            stated = re.search(r"^License:\s*(\S+)", paragraph, re.MULTILINE)
            if stated:
                return _SPDX.get(stated.group(1), stated.group(1))
    return "unstated for this pair in the package's copyright file"


@DICTIONARIES.register("freedict")
class FreeDict(Dictionary):
    """``max_tokens``: longest translation in words (1: only single-token ones). ``version``: Debian version, by
    default the one in Debian 12. ``folder``: where the files lie, instead of fetching the package. Headwords of several
    words and longer translations are left out and counted in ``skipped``."""

    licence = "GPL-2.0-or-later or GPL-3.0-or-later, by dictionary (FreeDict)"

    def __init__(
        self, max_tokens: int = 1, version: str | None = None, cache: str = CACHE, folder: str | None = None
    ) -> None:
        if max_tokens < 1:
            raise SdrrlError(f"dictionary 'freedict': max_tokens is {max_tokens}; give 1 or more")
        self._max_tokens, self._version, self._cache, self._folder = max_tokens, version, cache, folder
        self.skipped = Counter()

    @property
    def identity(self) -> str:
        return f"freedict/{self._version or 'debian12'}/r{REVISION}/{self._max_tokens}/{'folder' * bool(self._folder)}"

    def files(self, *languages: str) -> Iterable[Path]:
        index = self._locate(*languages)
        return [index, data_of(index)]

    def entries(self, source: str, target: str) -> Mapping[str, Sequence[str]]:
        out: dict[str, dict[str, None]] = {}
        index, skipped = self._locate(source, target), 0
        for article in read_articles(index):
            words, translations = parse_article(article)
            kept = [t for t in translations if self._usable(t)]
            skipped += len(translations) - len(kept) + sum(not _TOKEN.fullmatch(word) for word in words)
            for word in words:
                if kept and _TOKEN.fullmatch(word):
                    out.setdefault(word.lower(), {}).update(dict.fromkeys(kept))
        self.skipped[index.name] = skipped
        if not out:
            raise SdrrlError(f"dictionary 'freedict': no usable entry for {source}->{target}")
        return {word: tuple(found) for word, found in out.items()}

    def _usable(self, translation: str) -> bool:
        tokens = translation.split()
        return 0 < len(tokens) <= self._max_tokens and all(_TOKEN.fullmatch(t) for t in tokens)

    def _locate(self, source: str, target: str) -> Path:
        ends = language(source), language(target)
        if source == target or any(e.freedict is None and e.code != "eng" for e in ends):
            raise SdrrlError(f"dictionary 'freedict': FreeDict has no {source}-{target} dictionary")
        pair = "-".join(e.freedict or e.code for e in ends)
        package, probe = f"dict-freedict-{pair}", f"usr/share/dictd/freedict-{pair}.index"
        if self._folder:
            index = Path(self._folder) / Path(probe).name
            if not index.is_file():
                raise SdrrlError(f"dictionary 'freedict': {index} is missing; correct 'folder'")
            return index
        wikdict = any(e.freedict in WIKDICT for e in ends)
        version = self._version or (WIKDICT_VERSION if wikdict else VERSION)
        root = package_root(package, version, probe, self._cache)
        self.licence = stated_licence(root / "usr/share/doc" / package / "copyright", pair)
        return root / probe
