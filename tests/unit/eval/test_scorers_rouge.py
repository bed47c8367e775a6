"""XL-Sum's ROUGE against the official code's (tests/data/scorers/rouge.json), and its tokens."""

from __future__ import annotations

import json
import math
from dataclasses import astuple
from importlib import metadata

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import PAPER_LANGUAGES
from sdrrl_nemo.eval.scorers import rouge
from tests.launch import ROOT
from tests.versions import WITHOUT_OFFICIAL_ROUGE

OFFICIAL = json.loads((ROOT / "tests/data/scorers/rouge.json").read_text(encoding="utf-8"))
CASES = OFFICIAL["cases"]
pytestmark = WITHOUT_OFFICIAL_ROUGE


def test_the_cases_cover_every_language() -> None:
    assert len(CASES) >= 200
    assert {c["lang"] for c in CASES} == set(PAPER_LANGUAGES)
    assert sum(0 < c["rougeL"] < 1 for c in CASES) > 150


def test_the_packages_are_those_the_values_were_made_with() -> None:
    assert {name: metadata.version(name) for name in OFFICIAL["versions"]} == OFFICIAL["versions"]


@pytest.mark.parametrize("lang", PAPER_LANGUAGES)
def test_every_case_equals_the_official_code(lang: str) -> None:
    rows = [c for c in CASES if c["lang"] == lang]
    for case in rows:
        found = rouge.score_item(case["prediction"], case["reference"], lang)
        assert astuple(found) == (case["rouge1"], case["rouge2"], case["rougeL"]), case
    corpus = rouge.corpus_score([c["prediction"] for c in rows], [c["reference"] for c in rows], lang)
    assert corpus.rougeL == pytest.approx(100 * sum(c["rougeL"] for c in rows) / len(rows))


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("The runners' running, 3.5km!", "eng", ["the", "runner", "run", "3", "5", "km"]),
        ("Os direitos humanos estão", "por", ["os", "direit", "human", "estão"]),  # estão is a stop word
        ("สิทธิมนุษยชน", "tha", ["สิทธิมนุษยชน"]),
        ("人間は自由である", "jpn", ["人間", "は", "自由", "で", "ある"]),
        ("모든 인간은", "kor", ["모든", "인간은"]),
        ("Wszyscy ludzie", "pol", ["wszyscy", "ludzie"]),
        ("?! …", "eng", []),
    ],
)
def test_tokens(text: str, lang: str, expected: list[str]) -> None:
    assert rouge.tokens(text, lang) == expected


def test_what_cannot_be_scored() -> None:
    assert astuple(rouge.score_item("", "a summary", "eng")) == (0.0, 0.0, 0.0)
    assert math.isnan(rouge.corpus_score([], [], "eng").rouge1)
    with pytest.raises(SdrrlError, match="1 predictions for 2 references"):
        rouge.corpus_score(["x"], ["x", "y"], "eng")
    with pytest.raises(SdrrlError, match="use the ISO 639-3 code 'por'"):
        rouge.score_item("x", "x", "pt")


def test_a_missing_dictionary_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import fugashi

    def no_dictionary(*_: object) -> None:
        raise RuntimeError("Failed initializing MeCab.\nno such file")

    monkeypatch.setattr(fugashi, "Tagger", no_dictionary)
    rouge.scorer.cache_clear()
    with pytest.raises(SdrrlError, match=r"ROUGE in Japanese needs fugashi and unidic-lite") as caught:
        rouge.score_item("猫", "猫", "jpn")
    assert "\n" not in str(caught.value)


def test_spanish_words_are_stemmed_and_stop_words_are_not() -> None:
    """Stems by hand, as snowballstem.org's page of the Spanish stemmer has them."""
    found = rouge.tokens("¡Los niños estaban corriendo por las calles!", "spa")
    assert found == ["los", "niñ", "estaban", "corr", "por", "las", "call"]
