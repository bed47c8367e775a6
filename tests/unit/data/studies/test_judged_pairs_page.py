"""docs/quality_thresholds.md has the tables of docs/results/quality_pairs.json, and these are of today's filters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import sha256_file
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.studies.judged_pairs import read_judged_pairs
from sdrrl_nemo.data.studies.judged_pairs_tables import BEGIN, END, rewrite, section
from sdrrl_nemo.data.studies.pairs_study import PairsStudy
from sdrrl_nemo.data.studies.rejections import figures

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs/quality_thresholds.md"
AGAIN = "run the first command of docs/quality_thresholds.md again"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs/results/quality_pairs.json").read_text(encoding="utf-8"))
    return found


def test_the_page_has_the_tables_of_the_results(kept: dict[str, Any]) -> None:
    between = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert between == "\n".join(["", "", *section(kept), ""]), AGAIN


def test_the_results_are_of_the_committed_set(kept: dict[str, Any]) -> None:
    assert kept["set"]["sha256"] == sha256_file(ROOT / "data/judged_pairs.jsonl"), AGAIN


@pytest.mark.parametrize(
    ("run", "file"), [("configured", "configs/data/demo_por.yaml"), ("chosen", "data/judged_thresholds.yaml")]
)
def test_the_results_are_of_todays_filters(kept: dict[str, Any], run: str, file: str) -> None:
    pairs = read_judged_pairs(ROOT / "data/judged_pairs.jsonl")
    today = PairsStudy(load_config(PreprocessConfig, ROOT / file), pairs).filters()
    found = {name: figures(pairs, verdicts) for name, verdicts in today.items()}
    assert found == {name: kept[run]["judges"][name]["all"] for name in found}, AGAIN


def test_a_page_without_marks_is_refused_and_the_rest_of_one_stays(tmp_path: Path, kept: dict[str, Any]) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    with pytest.raises(SdrrlError, match="are not there"):
        rewrite(page, kept)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite(page, kept)
    rewrite(page, kept)
    assert page.read_text(encoding="utf-8") == "\n".join(["before", BEGIN, "", *section(kept), END, "after", ""])
