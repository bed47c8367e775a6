"""Scorers of the benchmarks beside the paper's against what their official code gave (make_further_cases.py)."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS
from sdrrl_nemo.data.text.languages import LANGUAGES, PAPER_LANGUAGES
from sdrrl_nemo.eval.scorers import arena_hard, language_confusion, mgsm, multiloko
from tests.data.scorers.make_further_cases import WORDS
from tests.launch import ROOT


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / f"tests/data/scorers/{name}.json").read_text("utf-8"))["cases"]
    assert len(found) >= 234
    return found


def test_multiloko() -> None:
    rows = cases("multiloko")
    assert {c["lang"] for c in rows} == set(PAPER_LANGUAGES)
    for case in rows:
        found = multiloko.score_item(case["prediction"], case["targets"])
        assert (found.em, found.f1, found.chrf) == (case["em"], case["f1"], case["chrf"]), case
    assert sum(c["em"] == 1 for c in rows) > 20 and sum(0 < c["f1"] < 1 for c in rows) > 100
    with pytest.raises(SdrrlError, match="no accepted answer"):
        multiloko.score_item("x", [])


def test_mgsm() -> None:
    rows = cases("mgsm")
    assert {c["lang"] for c in rows} == mgsm.OFFICIAL - {"spa"}
    for case in rows:
        assert mgsm.extract_number(case["text"], mgsm.HEADINGS[case["lang"]]) == case["number"], case
        assert mgsm.score_item(case["text"], case["target"], case["lang"]) == case["score"], case
    assert 20 < sum(c["score"] for c in rows) < 200
    assert set(mgsm.HEADINGS) == set(LANGUAGES)


def test_language_confusion() -> None:
    pytest.importorskip("fasttext")
    rows = cases("language_confusion")
    assert {c["lang"] for c in rows} == language_confusion.LANGUAGES - {"spa"}
    identifier, words = LANGUAGE_IDENTIFIERS.create("fasttext_lid"), language_confusion.english_words(WORDS.split("\n"))
    for lang in language_confusion.LANGUAGES - {"spa"}:
        official = [c for c in rows if c["lang"] == lang]
        found = language_confusion.score_items([c["text"] for c in official], lang, identifier, words)
        for case, item in zip(official, found, strict=True):
            one = language_confusion.corpus_score([item], lang)
            assert (one.lpr, one.accuracy, one.wpr) == (case["lpr"], case["acc"], case.get("wpr")), case
        judged = [c for c, item in zip(official, found, strict=True) if item.lines]
        whole = language_confusion.corpus_score(found, lang)
        assert whole.lpr == pytest.approx(sum(c["lpr"] for c in judged) / len(judged)) and whole.judged == len(judged)
    assert sum(c["lpr"] == 0 for c in rows) > 40 and any(c.get("wpr") == 0 for c in rows)


def test_arena_hard() -> None:
    rows = cases("arena_hard")
    battles = []
    for case in rows:
        verdicts = [arena_hard.read_verdict(r) for r in case["replies"]]
        assert verdicts == case["verdicts"], case
        found = arena_hard.score_item(*verdicts)
        if case["scores"] is None:
            assert found is None
            continue
        assert found and (found.points, found.weight) == (sum(case["scores"]), len(case["scores"])), case
        battles.append(found)
    official = [x for c in rows for x in c["scores"] or []]
    assert arena_hard.official_score(battles) == pytest.approx(math.fsum(official) / len(official), abs=1e-12)
    assert 100 < len(battles) < len(rows)


@pytest.mark.parametrize(
    ("baseline_first", "model_first", "outcome"),
    [
        ("B>A", "A>B", 1.0),
        ("B>>A", "A=B", 1.0),
        ("A>B", "B>A", 0.0),
        ("A=B", "B>A", 0.0),
        ("A=B", "A=B", 0.5),
        ("A>B", "A>B", 0.5),  # the first shown wins both times
        ("B>>A", "B>A", 0.5),
    ],
)
def test_tie_rule(baseline_first: str, model_first: str, outcome: float) -> None:
    battle = arena_hard.score_item(baseline_first, model_first)
    assert battle is not None and battle.outcome == outcome == arena_hard.win_rate([battle])
    assert arena_hard.score_item(baseline_first, None) is None and arena_hard.win_rate([]) is None
