"""Precision, recall and the rest by hand, over a small set, and the study of judges with a filter that stands in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.engines.base import (
    LANGUAGE_IDENTIFIERS,
    QUALITY_ESTIMATORS,
    Identified,
    LanguageIdentifier,
    QualityEstimator,
)
from sdrrl_nemo.data.filters import FILTERS, Filter, TextPair
from sdrrl_nemo.data.studies.judged_pairs import JudgedPair
from sdrrl_nemo.data.studies.judged_pairs_tables import BEGIN, END
from sdrrl_nemo.data.studies.pairs_measurement import ESTIMATOR, EVERYTHING, IDENTIFIED, measure_pairs
from sdrrl_nemo.data.studies.pairs_measurement import FILTERS as ALL
from sdrrl_nemo.data.studies.rejections import figures, report, together
from tools.bench.measure_quality import main

GOOD, BAD = None, "truncated"


def judged(target: str, fault: str | None = None, code: str = "por", kind: str = "list") -> JudgedPair:
    return JudgedPair(TextPair(f"source of {target}", target, "eng", code), kind, fault)


PAIRS = [
    judged("um"),
    judged("dois"),
    judged("três", kind="code"),
    judged("quatro", BAD),
    judged("cinco", "refusal"),
    judged("шість", code="ukr"),
    judged("сім", BAD, code="ukr"),
    judged("вісім", BAD, code="ukr"),
]


def test_figures_by_hand() -> None:
    #          right: um     dois  três      wrong: quatro  cinco  right: шість  wrong: сім  вісім
    verdicts = [None, "why", None, "why", None, None, "why", "why"]
    assert figures(PAIRS, verdicts) == {
        "right": 4,
        "right_rejected": 1,
        "wrong": 4,
        "wrong_rejected": 3,
        "false_rejects": 0.25,
        "wrong_accepted": 0.25,
        "precision": 0.75,  # 3 of 4 rejected ones are wrong
        "recall": 0.75,  # 3 of 4 wrong ones are rejected
    }


def test_an_empty_reason_is_a_rejection_and_nothing_divides_by_zero() -> None:
    assert figures(PAIRS[:2], ["", None])["right_rejected"] == 1
    nothing = figures([], [])
    assert {nothing[k] for k in ("false_rejects", "wrong_accepted", "precision", "recall")} == {None}
    silent = figures(PAIRS, [None] * 8)
    assert (silent["precision"], silent["recall"], silent["wrong_accepted"]) == (None, 0.0, 1.0)


def test_a_report_has_the_parts_and_the_false_rejects() -> None:
    found = report(PAIRS, ["a", None, "b", "c", None, None, None, "d"])
    assert found["by_pair"]["eng-por"] == figures(PAIRS[:5], ["a", None, "b", "c", None])
    assert found["by_pair"]["eng-ukr"]["recall"] == 0.5
    assert found["by_fault"] == {"truncated": [3, 2], "refusal": [1, 0]}
    assert found["by_kind"] == {"list": [3, 1], "code": [1, 1]}  # of right ones alone
    assert [(f["target"], f["reason"]) for f in found["false_rejects"]] == [("um", "a"), ("três", "b")]


def test_the_first_judge_that_rejects_gives_the_reason() -> None:
    assert together([None, "a", None], ["b", "c", None]) == ["b", "a", None]


class LongWords(Filter):
    """Stands in: rejects translations of more than ``most`` characters."""

    def __init__(self, most: int = 4) -> None:
        self.most = most

    def reject(self, pair: TextPair) -> str | None:
        return f"{len(pair.target)} characters" if len(pair.target) > self.most else None


class Latin(LanguageIdentifier):
    """Stands in: Portuguese when the text is ASCII or has ê, Russian otherwise, always sure."""

    def identify(self, texts: Sequence[str]) -> list[Identified]:
        return [Identified("por" if text.replace("ê", "e").isascii() else "rus", 1.0) for text in texts]


class Lengths(QualityEstimator):
    """Stands in: a tenth of the translation's length; knows no Ukrainian."""

    languages = frozenset({"eng", "por"})

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        assert all(text.isascii() or "ê" in text for text in translations), "asked about Ukrainian"
        return [len(text) / 10 for text in translations]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose judges stand in."""
    (tmp_path / "c.yaml").write_text(
        """
target_languages: [por]
output_dir: none
model: none
instructions: {path: none}
generation: {engine: {name: hf}}
translation: {name: none}
code_switch: {dictionary: {name: freedict}}
parallel: {engine: {name: none}}
quality: {engine: {name: stand_in}, tau: 0.3}
filters: [{name: stand_in, options: {most: 5}}]
language_id: {engine: {name: stand_in}, min_letters: 4, min_probability: 0.5}
by_pair:
  "*-ukr": {filters: [{name: stand_in, options: {most: 9}}]}
"""
    )
    registries = ((FILTERS, LongWords), (LANGUAGE_IDENTIFIERS, Latin), (QUALITY_ESTIMATORS, Lengths))
    for registry, stand_in in registries:
        registry.register("stand_in")(stand_in)  # type: ignore[attr-defined]
    yield tmp_path / "c.yaml"
    for registry, _ in registries:
        del registry._factories["stand_in"]  # type: ignore[attr-defined]


@pytest.fixture
def config(path: Path) -> PreprocessConfig:
    return load_config(PreprocessConfig, path)


def rejected(found: dict[str, object], judge: str) -> tuple[int, int]:
    total = found["judges"][judge]["all"]  # type: ignore[index]
    return total["right_rejected"], total["wrong_rejected"]


def test_every_judge_by_itself_and_together(config: PreprocessConfig) -> None:
    found = measure_pairs(config, PAIRS, ["stand_in"], keep=0.98)
    # The filter: quatro (6 > 5), but not шість and вісім (by_pair: 9); language id: these two, since сім is too short.
    assert rejected(found, ALL) == (0, 1)
    assert rejected(found, IDENTIFIED) == (1, 2)
    # The estimator sees Portuguese alone and rejects "um" (0.2 < 0.3).
    assert found["judges"][ESTIMATOR]["all"]["right"] == 3
    assert rejected(found, ESTIMATOR) == (1, 0)
    assert rejected(found, EVERYTHING) == (2, 2)
    assert found["judges"][EVERYTHING]["by_fault"] == {"truncated": [3, 2], "refusal": [1, 0]}
    assert set(found["tau"]) == {"eng-por", "all"}
    assert found["thresholds"]["eng-ukr"]["filters"] == [{"name": "stand_in", "options": {"most": 9}}]


def test_tau_and_its_auc(config: PreprocessConfig) -> None:
    found = measure_pairs(config, PAIRS, [], keep=0.98)["tau"]["eng-por"]
    # right: 0.2, 0.4, 0.4; wrong: 0.6, 0.5: no right one scores above a wrong one
    assert found["auc"] == 0.0
    assert found["tau_for_keep"] == 0.2
    assert found["at_tau_for_keep"]["right_rejected"] == 0
    assert found["at_configured_tau"]["right_rejected"] == 1


def test_sweeps_try_the_bounds_and_tau(config: PreprocessConfig) -> None:
    rows = measure_pairs(config, PAIRS, ["stand_in"], keep=0.98)["sweeps"]
    by = {(r["judge"], str(r["value"])): (r["right_rejected"], r["wrong_rejected"]) for r in rows}
    assert by["stand_in", "[10, 0.7]"] == (0, 0)  # no text has ten letters
    assert by[ESTIMATOR, "0.3"] == (1, 0) and by[ESTIMATOR, "0.45"] == (3, 0) and by[ESTIMATOR, "0.6"] == (3, 1)
    assert by[EVERYTHING, "0.6"] == (4, 3)


def test_the_tool_measures_a_file_of_pairs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "source": p.text.source,
            "target": p.text.target,
            "pair": "-".join(p.pair),
            "kind": p.kind,
            "right": p.right,
            "fault": p.fault,
        }
        for p in PAIRS
    ]
    out, page, pairs = path.with_name("out.json"), path.with_name("page.md"), path.with_name("pairs.jsonl")
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.write_text(f"{BEGIN}\n{END}\n")
    asked = [
        "--config",
        str(path),
        "--json",
        str(out),
        "--pairs",
        str(pairs),
        "--page",
        str(page),
        "--chosen",
        str(path),
    ]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "| **everything** | 50.0% (2) | 50.0% (2) | 50.0% | 50.0% (2) | 50.0% (2) | 50.0% |" in printed
    assert "| eng-por | 3 | 2 | 0.0%, 50.0% | 33.3%, 50.0% | 0.0%, 50.0% | 33.3%, 50.0% |" in printed
    assert "| refusal | an apology of the translating model, in either language | 1 | 1 | 1 | 1 | 1 |" in printed
    assert printed.strip() in page.read_text(encoding="utf-8")
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept["contents"]["right"] == 4 == kept["contents"]["wrong"]
    with pytest.raises(SdrrlError, match="belong to --pairs"):
        main(["--config", str(path), "--json", str(out), "--page", str(page)])
