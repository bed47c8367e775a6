"""MKQA's scores against the official script's (tests/data/scorers/mkqa.json), and its rules one by one."""

from __future__ import annotations

import json
import math

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import PAPER_LANGUAGES
from sdrrl_nemo.eval.scorers import mkqa
from tests.launch import ROOT

OFFICIAL = json.loads((ROOT / "tests/data/scorers/mkqa.json").read_text(encoding="utf-8"))
CASES = OFFICIAL["cases"]


def test_the_cases_cover_every_language() -> None:
    assert len(CASES) >= 200
    assert {c["lang"] for c in CASES} == set(PAPER_LANGUAGES)
    assert sum(0 < c["f1"] < 1 for c in CASES) > 60


@pytest.mark.parametrize("lang", PAPER_LANGUAGES)
def test_every_case_equals_the_official_script(lang: str) -> None:
    for case in (c for c in CASES if c["lang"] == lang):
        found = mkqa.score_item(case["prediction"], case["answers"], lang)
        assert (found.f1, found.exact_match) == (case["f1"], case["exact_match"]), case


@pytest.mark.parametrize("lang", PAPER_LANGUAGES)
def test_the_corpus_equals_the_official_summary(lang: str) -> None:
    rows = [c for c in CASES if c["lang"] == lang]
    texts, answers = [c["prediction"] for c in rows], [c["answers"] for c in rows]
    official = OFFICIAL["summaries"][lang]
    kept = mkqa.corpus_score(texts, answers, lang, unanswerable="keep")
    assert (round(kept.f1, 2), round(kept.exact_match, 2)) == (official["f1"], official["exact_match"])
    skipped = mkqa.corpus_score(texts, answers, lang)
    assert round(skipped.f1, 2) == official["answerable_f1"]
    assert round(skipped.exact_match, 2) == official["answerable_exact_match"]
    assert (kept.items, kept.skipped, skipped.items, skipped.skipped) == (13, 0, 12, 1)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("The  U.S.A., an Apple!", "eng", "usa apple"),
        ("l'eau de la ville", "fra", "au ville"),  # the official expression has no word boundary at its end
        ("東京 Tower", "jpn", "東 京 t o w e r"),
        ("กรุงเทพฯ", "tha", " ".join("กรุงเทพฯ")),
        ("ភ្នំពេញ", "khm", " ".join("ភ្នំពេញ")),
        ("대한민국 서울", "kor", "대한민국 서울"),
        ("«Київ»", "ukr", "«київ»"),  # only ASCII punctuation goes
    ],
)
def test_normalisation(text: str, lang: str, expected: str) -> None:
    assert mkqa.normalise(text, lang) == expected


def test_gold_answers_are_read_as_the_official_script_reads_them() -> None:
    row = [
        {"type": "entity", "entity": "Q90", "text": "Paris", "aliases": ["Paris, France", "Paris"]},
        {"type": "long_answer", "text": None},
    ]
    assert mkqa.gold_answers(row) == ["Paris", "Paris, France", ""]
    assert not mkqa.answerable(mkqa.gold_answers([{"type": "unanswerable", "text": None}]))
    assert mkqa.score_item("", [""], "eng") == mkqa.ItemScore(1.0, 1.0)
    assert mkqa.score_item("The", [""], "eng") == mkqa.ItemScore(1.0, 1.0)
    assert mkqa.score_item("Rome", [""], "eng") == mkqa.ItemScore(0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "exact"),
    [
        ("red blue", ["red green black"], 0.4, 0.0),  # recall 1/3, precision 1/2
        ("red red", ["red blue"], 0.5, 0.0),  # a word counts as often as the answer has it
        ("green", ["red", "green", ""], 1.0, 1.0),
        ("red", [""], 0.0, 0.0),
        ("", ["red"], 0.0, 0.0),
        ("", ["red", ""], 1.0, 1.0),
        ("black", ["red"], 0.0, 0.0),
    ],
)
def test_by_hand(prediction: str, answers: list[str], f1: float, exact: float) -> None:
    assert mkqa.score_item(prediction, answers, "eng") == mkqa.ItemScore(pytest.approx(f1), exact)


def test_means_are_in_percent_and_say_what_was_left_out() -> None:
    predictions, answers = ["red", "blue", "x"], [["red"], ["red"], [""]]
    assert mkqa.corpus_score(predictions, answers, "eng") == mkqa.CorpusScore(50.0, 50.0, 2, 1)
    kept = mkqa.corpus_score(predictions, answers, "eng", unanswerable="keep")
    assert kept == mkqa.CorpusScore(pytest.approx(100 / 3), pytest.approx(100 / 3), 3, 0)


def test_what_cannot_be_scored() -> None:
    assert math.isnan(mkqa.corpus_score(["x"], [[""]], "eng").f1)
    with pytest.raises(SdrrlError, match=r'an unanswerable one has \[""\]'):
        mkqa.score_item("x", [], "eng")
    with pytest.raises(SdrrlError, match="1 predictions for 2 questions"):
        mkqa.corpus_score(["x"], [["x"], ["y"]], "eng")
    with pytest.raises(SdrrlError, match="use the ISO 639-3 code 'fra'"):
        mkqa.score_item("x", ["x"], "fr")


@pytest.mark.parametrize(
    ("prediction", "gold", "f1", "exact"),
    [
        ("el Río Amazonas", ["río Amazonas"], 1.0, 1.0),
        ("la casa de los perros", ["casa de perros", "x"], 1.0, 1.0),
        ("Una de las 3.", ["3"], 0.6666666666666666, 0.0),
        ("Sí", ["no"], 0.0, 0.0),
        ("unos 20 años", ["20 años", "veinte años"], 1.0, 1.0),
        ("año 1.492", ["1492"], 0.6666666666666666, 0.0),
    ],
)
def test_spanish_as_the_official_code_scores_it(prediction: str, gold: list[str], f1: float, exact: float) -> None:
    """Values of ``get_text_metrics(..., "es")`` of apple/ml-mkqa, commit 651b8cc."""
    found = mkqa.score_item(prediction, gold, "spa")
    assert (found.f1, found.exact_match) == (f1, exact)
