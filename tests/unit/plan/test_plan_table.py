"""docs/planning.md and docs/results say what the planner says of the shipped GPU configurations today."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from tools.docs import plan_table


def test_the_page_and_the_file_are_what_the_tool_writes() -> None:
    plan_table.main(["--check"])


def test_another_number_or_a_lost_marker_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "planning.md"
    monkeypatch.setattr(plan_table, "PAGE", page)
    text = (plan_table.ROOT / "docs/planning.md").read_text(encoding="utf-8")
    page.write_text(text.replace("| llama2_7b_a800x64 |", "| llama2_7b_a800x32 |"), encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"planning\.md: differs from .*; run tools/docs/plan_table"):
        plan_table.main(["--check"])
    page.write_text(text.replace("<!-- example: end -->", ""), encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"planning\.md: needs the lines .* and '<!-- example: end -->' once"):
        plan_table.main([])


def test_a_file_of_other_predictions_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "plan_configs.json"
    other.write_text(
        plan_table.RESULTS.read_text(encoding="utf-8").replace("tokens_per_second", "tokens"), encoding="utf-8"
    )
    monkeypatch.setattr(plan_table, "RESULTS", other)
    with pytest.raises(SdrrlError, match=r"plan_configs\.json: other predictions than today's; run tools/docs"):
        plan_table.main(["--check"])


def test_every_gpu_configuration_is_in_the_table() -> None:
    """And the former layouts have no option, so that the last column is the options' and the layout's."""
    shipped = {p.stem for p in (plan_table.ROOT / "configs").glob("*_a800x*.yaml")}
    assert set(plan_table.CONFIGURATIONS) == shipped
    for row in plan_table.predictions()["configurations"].values():
        assert not row["before"]["overlap"]
        assert row["now"]["overlap"]
        assert row["now"]["tokens_per_second"] > row["before"]["tokens_per_second"]
