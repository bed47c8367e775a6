"""Word segmentation against sentences segmented by hand in every language of the table."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.data.text.words import graphemes, korean_stems, tokenize, words

BY_HAND = {
    "eng": "Don't| |use| |well-known| |O’Neill's| |e-mail|, |room| |42|!",
    "fra": "L'eau| |n’est| |pas| |là-bas|.",
    "ces": "Příliš| |žluťoučký| |kůň| |úpěl|.",
    "dan": "Rødgrød| |med| |fløde|?",
    "ukr": "Мій| |комп’ютер| |має| |п'ять| |ядер|.",
    "bul": "Котката| |пие| |мляко|.",
    "fin": "Hyvää| |yötä|, |ystäväni|!",
    "hun": "Az| |árvíztűrő| |tükörfúrógép|.",
    "nob": "Blåbærsyltetøy| |på| |brødet|.",
    "ind": "Anak-anak| |bermain| |di| |taman|.",
    "jpn": "私|は|iPhone|で|写真|を|見る|。",
    "kor": "저는| |도서관에서| |책을| |읽습니다|.",
    "por": "Guarda-chuva| |é| |útil|, |não| |é|?",
    "slv": "Žaba| |čaka| |šest| |ur|.",
    "vie": "Tôi| |thích| |đọc| |sách|.",
    "pol": "Zażółć| |gęślą| |jaźń|.",
    "tha": "แมว|ตัว|นี้|ชอบ|อ่าน|หนังสือ| |๒| |เล่ม",
    "spa": "¿|Dónde| |está| |el| |niño|, |papá|?",
    "khm": "ខ្ញុំ|ចូលចិត្ត|អាន|សៀវភៅ|នៅ|បណ្ណាល័យ|។",
}


def test_every_language_is_here() -> None:
    assert set(BY_HAND) == set(LANGUAGES)


@pytest.mark.parametrize("code", BY_HAND)
def test_words_by_hand(code: str) -> None:
    marked = BY_HAND[code]
    expected = [part for part in marked.split("|") if any(c.isalnum() for c in part)]
    assert words(marked.replace("|", ""), code) == expected


def test_scripts_decide_not_the_language() -> None:
    assert words("Say 猫が好き and แมวตัวนี้", "eng") == ["Say", "猫", "が", "好き", "and", "แมว", "ตัว", "นี้"]
    assert words("ใช้well-knownแล้ว", "tha") == ["ใช้", "well-known", "แล้ว"]


def test_letters_beyond_16_bits_do_not_shift_the_spans() -> None:
    text = "😀𠮷野家で𠮷を食べる😀cat"
    assert words(text, "jpn")[0] == "𠮷"
    assert words(text, "jpn")[-1] == "cat"
    assert "".join(words(text, "jpn")) == text.replace("😀", "")


def test_decomposed_text_stays_whole() -> None:
    assert words("tie\u0302\u0301ng Vie\u0323\u0302t", "vie") == ["tie\u0302\u0301ng", "Vie\u0323\u0302t"]


@pytest.mark.parametrize(
    ("word", "stems"),
    [
        ("책을", ["책"]),
        ("학교에서는", ["학교에서", "학교"]),
        ("물로", ["물"]),
        ("마을", []),  # 을 needs a final consonant before it
        ("나이", []),
        ("Python은", ["Python"]),
        ("학생입니다", ["학생"]),
        ("책", []),
    ],
)
def test_korean_particles(word: str, stems: list[str]) -> None:
    assert [word[:end] for end in korean_stems(word)] == stems


def test_a_missing_segmenter_is_one_sentence_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    assert words("책을 read", "kor") == ["책을", "read"]
    with pytest.raises(SdrrlError, match=r"package 'icu4py' cannot be imported.*pip install"):
        tokenize("猫", "jpn")


ALPHABET = st.sampled_from("aé'’-0 .\n日本ーのカ々ｱกำ้ิ๑ៗខ្ញុំ១។\u200b\u200d각은😀𠮷\u0301_")


@settings(max_examples=300, deadline=None)
@given(st.text(ALPHABET, max_size=40), st.sampled_from(["eng", "jpn", "tha", "khm", "kor"]))
def test_spans_are_in_order_and_lose_no_letter(text: str, code: str) -> None:
    spans = tokenize(text, code)
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert not any(c.isalnum() for c in text[position:start])
        position = end
    assert not any(c.isalnum() for c in text[position:])


@settings(max_examples=100, deadline=None)
@given(st.text(ALPHABET, max_size=40))
def test_graphemes_cover_the_text(text: str) -> None:
    assert "".join(text[a:b] for a, b in graphemes(text)) == text
