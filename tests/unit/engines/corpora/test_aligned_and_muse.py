"""Moses, OPUS-100, TMX and MUSE in small files of the published layouts, and in broken ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import fingerprint_of
from sdrrl_nemo.data.engines.corpora.aligned import Moses, Opus, Opus100, Tmx
from sdrrl_nemo.data.engines.dictionaries.muse import Muse
from sdrrl_nemo.data.text.languages import LANGUAGES

EN, PT = ["Hello.", "One\u2028line.", "Hello.", "", "Bye."], ["Olá.", "Uma linha.", "Olá.", "x", "Tchau."]
PAIRS = [("Hello.", "Olá."), ("One line.", "Uma linha."), ("Bye.", "Tchau.")]


def text(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return path


def test_moses(tmp_path: Path) -> None:
    a, b = text(tmp_path / "x.en", EN), text(tmp_path / "x.pt", PT)
    corpus = Moses(str(a), str(b), "eng", "por", licence="CC0-1.0")
    assert list(corpus.pairs("eng", "por")) == PAIRS
    assert list(corpus.pairs("por", "eng")) == [(t, s) for s, t in PAIRS]
    assert corpus.licence == "CC0-1.0"
    with pytest.raises(SdrrlError, match="holds eng-por, not eng-ces"):
        corpus.pairs("eng", "ces")
    text(b, PT[:-1])
    with pytest.raises(SdrrlError, match=r"x\.en has 5 lines, .*x\.pt has 4: they are not aligned"):
        list(corpus.pairs("eng", "por"))
    b.write_bytes(b"\xff\n")
    with pytest.raises(SdrrlError, match=r"x\.pt, line 1: not UTF-8"):
        list(Moses(str(a), str(b), "eng", "por").pairs("eng", "por"))


@pytest.mark.parametrize("root", ["", "opus-100-corpus/v1.0/supervised"])
def test_opus100_text(root: str, tmp_path: Path) -> None:
    text(tmp_path / root / "en-pt/opus.en-pt-train.en", EN)
    text(tmp_path / root / "en-pt/opus.en-pt-train.pt", PT)
    corpus = pickle.loads(pickle.dumps(Opus100(str(tmp_path))))
    assert list(corpus.pairs("eng", "por")) == PAIRS
    assert next(corpus.pairs("por", "eng")) == ("Olá.", "Hello.")


def test_opus100_parquet_and_alphabetical_names(tmp_path: Path) -> None:
    (tmp_path / "cs-en").mkdir()
    rows = [
        {"translation": {"cs": "Ahoj.", "en": "Hello."}},
        {"translation": None},
        {"translation": {"cs": None, "en": "x"}},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "cs-en/train-00000-of-00001.parquet")
    assert list(Opus100(str(tmp_path)).pairs("eng", "ces")) == [("Hello.", "Ahoj.")]
    with pytest.raises(SdrrlError, match=r"en-pt holds neither opus\.en-pt-train\.en"):
        Opus100(str(tmp_path)).pairs("eng", "por")
    with pytest.raises(SdrrlError, match="English is one side of every pair"):
        Opus100(str(tmp_path)).pairs("fra", "por")
    (tmp_path / "cs-en/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(SdrrlError, match="cannot be read as OPUS-100's Parquet"):
        list(Opus100(str(tmp_path)).pairs("eng", "ces"))


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header srclang="*all*" segtype="sentence"/><body>
<tu><tuv xml:lang="EN"><seg>Press <bpt i="1">&lt;b&gt;</bpt>OK<ept i="1">&lt;/b&gt;</ept> <hi>now</hi>.</seg></tuv>
    <tuv xml:lang="pt-BR"><seg>Pressione OK agora.</seg></tuv>
    <tuv xml:lang="pt-PT"><seg>Carregue em OK.</seg></tuv></tu>
<tu><tuv lang="en_US"><seg>Only one.</seg></tuv></tu>
<tu><tuv xml:lang="pt"><seg>Olá.</seg></tuv><tuv xml:lang="en"><seg>Hello.</seg></tuv></tu>
<tu><tuv xml:lang="en"/><tuv xml:lang="pt"><seg>Sem par.</seg></tuv></tu>
</body></tmx>"""


def test_tmx(tmp_path: Path) -> None:
    path = tmp_path / "m.tmx"
    path.write_text(TMX, encoding="utf-8")
    assert list(Tmx(str(path)).pairs("eng", "por")) == [
        ("Press OK now.", "Pressione OK agora."),
        ("Hello.", "Olá."),
    ]
    european = Tmx(str(path), regions={"por": "pt-PT"})
    assert list(european.pairs("por", "eng")) == [("Carregue em OK.", "Press OK now.")]
    assert list(Tmx(str(path)).pairs("eng", "ces")) == []
    path.write_text(TMX.replace("</body>", ""), encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"m\.tmx, line 9: no well-formed XML"):
        list(Tmx(str(path)).pairs("eng", "por"))


def test_muse(tmp_path: Path) -> None:
    text(tmp_path / "en-pt.txt", ["water água", "water\táguas", "Ipê Ipê", "go ir"])
    dictionary = Muse(str(tmp_path))
    assert dictionary.entries("eng", "por") == {"water": ("água", "águas"), "ipê": ("Ipê",), "go": ("ir",)}
    assert dictionary.entries("por", "eng") == {"água": ("water",), "águas": ("water",), "ipê": ("Ipê",), "ir": ("go",)}
    before = [fingerprint_of(dictionary, *way) for way in (("eng", "por"), ("por", "eng"))]
    text(tmp_path / "pt-en.txt", ["ir walk"])
    assert Muse(str(tmp_path)).entries("por", "eng") == {"ir": ("walk",)}
    assert fingerprint_of(dictionary, "eng", "por") == before[0]
    assert fingerprint_of(dictionary, "por", "eng") != before[1]
    with pytest.raises(SdrrlError, match=r"MUSE has no dictionary of Khmer.*code_switch\.dictionary\.name=none"):
        dictionary.entries("eng", "khm")
    with pytest.raises(SdrrlError, match=r"neither .*en-fi\.txt nor fi-en\.txt is there; download"):
        dictionary.entries("eng", "fin")


def test_lines_that_are_no_word_and_its_translation_are_skipped_and_counted(tmp_path: Path) -> None:
    lines = [
        "in addition navíc",
        "cat kočka",
        "dog\u00a0house bouda",
        "  water  voda ",
        "alone",
        "",
        "New\u3000York NY x",
    ]
    text(tmp_path / "en-cs.txt", lines)
    with open(tmp_path / "en-cs.txt", "ab") as f:
        f.write(b"bad \xff\nsun slunce\nmoon\tm\xc4\x9bs\xc3\xadc\nyes ano\n")
    dictionary = Muse(str(tmp_path))
    found = dictionary.entries("eng", "ces")
    assert found == {"cat": ("kočka",), "water": ("voda",), "sun": ("slunce",), "moon": ("měsíc",), "yes": ("ano",)}
    assert dictionary.skipped == {"en-cs.txt": 5}
    text(tmp_path / "en-cs.txt", ["cat kočka", "this is prose", "and more of it"])
    with pytest.raises(SdrrlError, match=r"en-cs\.txt: 2 of 3 lines are no word .*line 2 is 'this is prose'"):
        Muse(str(tmp_path)).entries("eng", "ces")


def test_muse_goes_through_english_where_it_has_no_pair(tmp_path: Path) -> None:
    text(tmp_path / "fr-en.txt", ["eau water", "eau Waters", "chien dog", "rare unknown"])
    text(tmp_path / "en-id.txt", ["water air", "waters perairan", "waters air", "dog anjing"])
    pivoted = Muse(str(tmp_path), pivot="eng")
    assert pivoted.entries("fra", "ind") == {"eau": ("air", "perairan"), "chien": ("anjing",)}
    assert pivoted.entries("ind", "fra") == {"air": ("eau",), "perairan": ("eau",), "anjing": ("chien",)}
    assert pivoted.entries("fra", "eng")["chien"] == ("dog",)
    with pytest.raises(SdrrlError, match=r"neither .*fr-id\.txt nor id-fr\.txt is there; download .*pivot: eng"):
        Muse(str(tmp_path)).entries("fra", "ind")
    text(tmp_path / "id-fr.txt", ["anjing clebs"])  # where the pair has a file of its own, that is the one
    assert pivoted.entries("fra", "ind") == {"clebs": ("anjing",)}


def test_opus(tmp_path: Path) -> None:
    text(tmp_path / "TED2020.fr-id.fr", ["Bonjour.", "Au revoir."])
    text(tmp_path / "TED2020.fr-id.id", ["Halo.", "Sampai jumpa."])
    corpus = pickle.loads(pickle.dumps(Opus(str(tmp_path), "TED2020")))
    assert list(corpus.pairs("fra", "ind")) == [("Bonjour.", "Halo."), ("Au revoir.", "Sampai jumpa.")]
    assert next(corpus.pairs("ind", "fra")) == ("Halo.", "Bonjour.")
    with pytest.raises(SdrrlError, match=r"'opus': .*TED2020\.fr-ja\.fr: no such file; download TED2020's fr-ja"):
        corpus.pairs("fra", "jpn")


def test_the_table_names_every_language() -> None:
    assert [c for c, x in LANGUAGES.items() if not x.own_name] == []
    assert [c for c, x in LANGUAGES.items() if x.muse is None] == ["khm"]
    assert [c for c, x in LANGUAGES.items() if x.opus100 is None] == []
    assert len({x.opus100 for x in LANGUAGES.values()}) == len(LANGUAGES) == 19
