"""Parallel corpora in two aligned files (Moses), in OPUS-100's layout, and in TMX; all read as a stream."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import PARALLEL_CORPORA, ParallelCorpus, SentencePair
from sdrrl_nemo.data.readers.records import PARQUET_ERRORS, first_words
from sdrrl_nemo.data.text.languages import Language, language

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def unique(pairs: Iterable[tuple[str, str]]) -> Iterator[SentencePair]:
    """Non-empty pairs, each once; remembers 16 bytes a pair."""
    seen: set[bytes] = set()
    for source, target in pairs:
        a, b = " ".join(source.split()), " ".join(target.split())
        if a and b:
            key = hashlib.blake2b(f"{a}\0{b}".encode(), digest_size=16).digest()
            if key not in seen:
                seen.add(key)
                yield SentencePair(a, b)


def _text_lines(path: Path) -> Iterator[str]:
    """Lines between line feeds alone: other separators of Unicode occur inside sentences."""
    with open(path, "rb") as f:
        for n, raw in enumerate(f, 1):
            try:
                yield raw.decode("utf-8-sig" if n == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as e:
                raise SdrrlError(f"{path}, line {n}: not UTF-8 ({e.reason} at byte {e.start})") from None


def _aligned(first: Path, second: Path) -> Iterator[tuple[str, str]]:
    """Line i of both files; SdrrlError with both counts when one is longer."""
    for a, b in zip_longest(_text_lines(first), _text_lines(second)):
        if a is None or b is None:
            counts = [sum(1 for _ in _text_lines(p)) for p in (first, second)]
            raise SdrrlError(f"{first} has {counts[0]} lines, {second} has {counts[1]}: they are not aligned")
        yield a, b


def _existing(path: Path, corpus: str, hint: str) -> Path:
    if not path.is_file():
        raise SdrrlError(f"parallel corpus '{corpus}': {path}: no such file; {hint}")
    return path


@PARALLEL_CORPORA.register("moses")
class Moses(ParallelCorpus):
    """Two UTF-8 files whose lines correspond: ``source_path`` in ``source``, ``target_path`` in ``target``."""

    def __init__(self, source_path: str, target_path: str, source: str, target: str, licence: str = "unstated") -> None:
        self._paths = tuple(_existing(Path(p), "moses", "correct the path") for p in (source_path, target_path))
        self._columns = (language(source).code, language(target).code)
        self.licence = licence

    @property
    def identity(self) -> str:
        return f"moses/{'-'.join(self._columns)}"

    def files(self, *languages: str) -> Iterable[Path]:
        return self._paths

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        wanted = (language(source).code, language(target).code)
        if wanted not in (self._columns, self._columns[::-1]):
            raise SdrrlError(f"{self._paths[0]}: holds {'-'.join(self._columns)}, not {source}-{target}")
        a, b = self._paths if wanted == self._columns else self._paths[::-1]
        return unique(_aligned(a, b))


@PARALLEL_CORPORA.register("opus")
class Opus(ParallelCorpus):
    """Any corpus of OPUS in its Moses form, for every pair it has; unlike OPUS-100, many have pairs without English.

    ``folder`` holds the unpacked files under their own names: ``TED2020.fr-id.fr`` and ``TED2020.fr-id.id`` with
    ``corpus: TED2020``.
    """

    def __init__(self, folder: str, corpus: str, licence: str = "by corpus; see OPUS (opus.nlpl.eu)") -> None:
        self._folder, self._corpus = Path(folder), corpus
        self.licence = licence

    @property
    def identity(self) -> str:
        return f"opus/r1/{self._corpus}"

    def files(self, *languages: str) -> Iterable[Path]:
        return self._located(*languages)

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        return unique(_aligned(*self._located(source, target)))

    def _located(self, source: str, target: str) -> tuple[Path, Path]:
        """The files of both languages; SdrrlError names the one that is missing."""
        a, b = (_opus_code("opus", x) for x in (source, target))
        pair = "-".join(sorted((a, b)))
        first, second = (self._folder / f"{self._corpus}.{pair}.{code}" for code in (a, b))
        hint = f"download {self._corpus}'s {pair} from OPUS there in its Moses form, or correct 'folder' and 'corpus'"
        return _existing(first, "opus", hint), _existing(second, "opus", hint)


@PARALLEL_CORPORA.register("opus100")
class Opus100(ParallelCorpus):
    """OPUS-100 (Zhang et al. 2020), which the paper draws from: ``folder`` as published, with
    ``en-pt/opus.en-pt-train.en`` and ``.pt`` (the archive's own ``opus-100-corpus/v1.0/supervised/`` is found too), or
    ``en-pt/train-00000-of-00001.parquet`` as on the hub. English is one side of every pair.
    """

    licence = "by source; see OPUS (opus.nlpl.eu)"

    def __init__(self, folder: str, part: str = "train") -> None:
        self._folder, self._part = Path(folder), part

    @property
    def identity(self) -> str:
        return f"opus100/r1/{self._part}"

    def files(self, *languages: str) -> Iterable[Path]:
        return self._located(*languages)

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        found = self._located(source, target)
        if found[0].suffix == ".parquet":
            return unique(_parquet(found, *(_opus_code("opus100", x) for x in (source, target))))
        return unique(_aligned(*found))

    def _located(self, source: str, target: str) -> list[Path]:
        """The text files of both languages, or the Parquet files; SdrrlError where there are neither."""
        a, b = (_opus_code("opus100", x) for x in (source, target))
        name = "-".join(sorted((a, b)))
        if "en" not in (a, b):
            raise SdrrlError(f"parallel corpus 'opus100': has no {source}-{target}: English is one side of every pair")
        for root in (self._folder, self._folder / "opus-100-corpus/v1.0/supervised", self._folder / "supervised"):
            text = [root / name / f"opus.{name}-{self._part}.{code}" for code in (a, b)]
            if all(p.is_file() for p in text):
                return text
            parts = sorted((root / name).glob(f"{self._part}-*.parquet"))
            if parts:
                return parts
        raise SdrrlError(
            f"parallel corpus 'opus100': {self._folder / name} holds neither opus.{name}-{self._part}.{a} and .{b} nor "
            f"{self._part}-*.parquet; download OPUS-100 there, or correct 'folder'"
        )


def _opus_code(corpus: str, code: str) -> str:
    """The name that OPUS has for a language."""
    entry = language(code)
    if entry.opus100 is None:
        raise SdrrlError(f"parallel corpus '{corpus}': has no {entry.name} ({entry.code})")
    return entry.opus100


def _parquet(parts: list[Path], a: str, b: str) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet

    for path in parts:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["translation"]):
                    for row in batch.column("translation").to_pylist():
                        pair = dict(row or {})
                        source, target = pair.get(a) or "", pair.get(b) or ""
                        if not (isinstance(source, str) and isinstance(target, str)):
                            raise TypeError(f"the columns {a} and {b} hold no texts")
                        yield source, target
        except PARQUET_ERRORS as e:
            raise SdrrlError(f"{path}: cannot be read as OPUS-100's Parquet ({first_words(e)})") from None


@PARALLEL_CORPORA.register("tmx")
class Tmx(ParallelCorpus):
    """Translation memories (TMX 1.4). A unit gives a pair when it has a variant of both languages; a regional variant
    (``pt-BR``) counts as its language unless ``regions`` names the one to take, ``{por: pt-PT}``. Inline tags are
    dropped with what they hold of formatting."""

    def __init__(self, path: str, licence: str = "unstated", regions: dict[str, str] | None = None) -> None:
        self._path = _existing(Path(path), "tmx", "correct 'path'")
        self._regions = {language(k).code: v.lower() for k, v in (regions or {}).items()}
        self.licence = licence

    @property
    def identity(self) -> str:
        return f"tmx/{sorted(self._regions.items())}"

    def files(self, *languages: str) -> Iterable[Path]:
        return [self._path]

    def pairs(self, source: str, target: str) -> Iterator[SentencePair]:
        ends = [language(x) for x in (source, target)]
        return unique(self._units(*ends))

    def _units(self, a: Language, b: Language) -> Iterator[tuple[str, str]]:
        try:
            for _, element in ET.iterparse(self._path, events=("end",)):
                if _local(element.tag) == "tu":
                    found = [self._segment(element, x) for x in (a, b)]
                    element.clear()
                    if found[0] is not None and found[1] is not None:
                        yield found[0], found[1]
        except ET.ParseError as e:
            raise SdrrlError(f"{self._path}, line {e.position[0]}: no well-formed XML ({e})") from None
        except (ValueError, LookupError, RecursionError, OSError) as e:  # an encoding that expat has not; too deep
            raise SdrrlError(f"{self._path}: cannot be read as TMX ({e})") from None

    def _segment(self, unit: ET.Element, wanted: Language) -> str | None:
        for variant in unit:
            if _local(variant.tag) != "tuv":
                continue
            tag = (variant.get(XML_LANG) or variant.get("lang") or "").lower().replace("_", "-")
            region = self._regions.get(wanted.code)
            names = {wanted.code, wanted.fasttext, wanted.cld3, wanted.opus100 or ""} - {""}
            if tag == region or (region is None and tag.split("-")[0] in names):
                seg = next((e for e in variant if _local(e.tag) == "seg"), None)
                return _plain(seg) if seg is not None else None
        return None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def _plain(element: ET.Element) -> str:
    """Text of a segment; inline elements hold codes, but highlighted text (``hi``) is text."""
    parts = [element.text or ""]
    for child in element:
        if _local(child.tag) in ("hi", "sub"):
            parts.append(_plain(child))
        parts.append(child.tail or "")
    return "".join(parts)
