"""FreeDict, GNOME help, TSV and the Debian source, on the real pinned packages and on small broken files."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.provenance import REPO_ROOT
from sdrrl_nemo.data.engines import debian
from sdrrl_nemo.data.engines.corpora.gnome_help import GnomeHelp
from sdrrl_nemo.data.engines.corpora.tsv import TsvCorpus
from sdrrl_nemo.data.engines.dictionaries.freedict import FreeDict, parse_article

CACHE = str(REPO_ROOT / ".cache" / "debian")
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not on this machine")

HELP = """<page xmlns="http://projectmallard.org/1.0/" id="x"><info><desc>{0}</desc>
<credit><name>Nobody at all is here.</name></credit></info><title>Some title</title><p>{1}</p>
<steps><item><p>{2}</p></item></steps><p>{3}</p></page>"""


@needs_apt
def test_freedict_eng_por_is_read_whole() -> None:
    engine = FreeDict(cache=CACHE)
    entries = engine.entries("eng", "por")
    assert len(entries) == 13930
    assert entries["go"] == ("andar", "caminhar", "ir")
    assert "água" in entries["water"]
    assert all(" " not in t for found in entries.values() for t in found)
    assert all(word == word.lower() for word in entries)
    assert engine.licence == "GPL-2.0-or-later"
    assert len(FreeDict(cache=CACHE, max_tokens=3).entries("eng", "por")) > len(entries)


@needs_apt
def test_gnome_help_has_enough_clean_pairs() -> None:
    engine = GnomeHelp(cache=CACHE)
    pairs = list(engine.pairs("eng", "por"))
    assert len(pairs) == 1302
    assert len({s for s, _ in pairs}) == len({t for _, t in pairs}) == len(pairs)
    assert list(engine.pairs("por", "eng")) == [(t, s) for s, t in pairs]
    assert all(s != t for s, t in pairs)


@pytest.mark.parametrize(
    ("article", "expected"),
    [
        ("ABC /eibiːsiː/ <s>\nabc, alfabeto", (["ABC"], ["abc", "alfabeto"])),
        ("a /ə/ <art>\n1. primeira letra\n2. um, uma", (["a"], ["primeira letra", "um", "uma"])),
        ("tree //tɹi// /[t̠ɹ̠]/ <n>\n1. 木, 樹木 2.\nlarge plant\n 3.\nlist\n", (["tree"], ["木", "樹木"])),
        ("house //haʊs// <n>\nстопа́нство\nan establishment, business\n", (["house"], ["стопанство"])),
        ("x\nI.  <N> 1.  dom\n 2.  [książek]  bank\n - mieszkać\n", (["x"], ["dom", "bank"])),
    ],
)
def test_article_styles(article: str, expected: tuple[list[str], list[str]]) -> None:
    assert parse_article(article) == expected


def _dictionary(folder: Path, index: str) -> FreeDict:
    (folder / "freedict-eng-por.index").write_text(index, encoding="utf-8")
    (folder / "freedict-eng-por.dict.dz").write_bytes(gzip.compress(b"dog /d/\ncachorro, amigo fiel\n"))
    return FreeDict(folder=str(folder))


def test_small_dictionary_and_its_damages(tmp_path: Path) -> None:
    dictionary = _dictionary(tmp_path, "dog\tA\td\n")
    assert dictionary.entries("eng", "por") == {"dog": ("cachorro",)}
    assert dictionary.skipped == {"freedict-eng-por.index": 1}  # 'amigo fiel'
    cases = {
        r"index, line 1: expected word": "dog A d\n",
        r"index, line 2: '!' is no base-64": "dog\tA\td\ncat\t!\tB\n",
        r"index, line 1: the article lies beyond": "dog\tA\tBAA\n",
        r"no usable entry": "00databaseinfo\tA\td\n",
    }
    for message, index in cases.items():
        with pytest.raises(SdrrlError, match=message):
            _dictionary(tmp_path, index).entries("eng", "por")
    (tmp_path / "freedict-eng-por.dict.dz").write_bytes(b"not gzip")
    with pytest.raises(SdrrlError, match="cannot be read"):
        FreeDict(folder=str(tmp_path)).entries("eng", "por")
    with pytest.raises(SdrrlError, match="no eng-kor dictionary"):
        FreeDict().entries("eng", "kor")


def test_help_pages_align_by_place(tmp_path: Path) -> None:
    same = "This one stays in English here."
    english = ("A short line of help.", "One whole sentence stands here.", "Two are here. They do not count.", same)
    translated = ("Uma linha de ajuda.", "Uma frase inteira fica aqui.", "Duas aqui. Não contam.", same)
    for locale, texts in (("C", english), ("pt_BR", translated)):
        (tmp_path / locale / "guide").mkdir(parents=True)
        (tmp_path / locale / "guide" / "a.page").write_text(HELP.format(*texts), encoding="utf-8")
    engine = GnomeHelp(folder=str(tmp_path))
    assert list(engine.pairs("eng", "por")) == list(zip(english[:2], translated[:2], strict=True))
    with pytest.raises(SdrrlError, match=r"no Czech \('ces'\) translation"):
        list(engine.pairs("eng", "ces"))
    (tmp_path / "pt_BR" / "guide" / "a.page").write_text("<page>", encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"a\.page: not a readable Mallard page"):
        list(engine.pairs("eng", "por"))


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_bytes("\ufeffdog\tcão\r\n\ncat\tgato\ndog\tcão\n".encode())
    corpus = TsvCorpus(str(path), "eng", "por")
    assert list(corpus.pairs("eng", "por")) == [("dog", "cão"), ("cat", "gato")]
    assert list(corpus.pairs("por", "eng")) == [("cão", "dog"), ("gato", "cat")]
    with pytest.raises(SdrrlError, match="holds eng-por, not eng-ces"):
        list(corpus.pairs("eng", "ces"))
    for bad, message in ((b"a\tb\nc\n", "line 2: expected two"), (b"a\tb\n\xff\tb\n", "line 2: not UTF-8")):
        path.write_bytes(bad)
        with pytest.raises(SdrrlError, match=rf"p\.tsv, {message}"):
            list(TsvCorpus(str(path), "eng", "por").pairs("eng", "por"))
    with pytest.raises(SdrrlError, match="no such file"):
        TsvCorpus(str(tmp_path / "absent"), "eng", "por")


@needs_apt
def test_debian_versions_that_are_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_private_lists", lambda _: ["-o", "Dir::Etc::SourceList=/dev/null"])
    with pytest.raises(SdrrlError, match=r"dict-freedict-eng-por 0\.1 cannot be fetched \(.*\); install that version"):
        debian.package_root("dict-freedict-eng-por", "0.1", "usr/share", tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").iterdir() if p.name != "apt"] == []


def test_debian_cache_is_used_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "no-such-package-1%3a2"
    (folder / "usr").mkdir(parents=True)
    assert debian.package_root("no-such-package", "1:2", "usr", tmp_path) == folder
    with pytest.raises(SdrrlError, match="'usr/share/x' is missing; remove the folder"):
        debian.package_root("no-such-package", "1:2", "usr/share/x", tmp_path)


def test_without_apt_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SdrrlError, match="'apt-get' is not on this machine; unpack Debian package abc 1 yourself"):
        debian.package_root("abc", "1", "usr", tmp_path / "cache")
