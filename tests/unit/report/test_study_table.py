"""docs/study.md says what docs/results says of the finished studies."""

from __future__ import annotations

from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import markers
from sdrrl_nemo.study.results import collect
from tests.unit.study.conftest import finished, study, unfinished  # noqa: F401  fixtures
from tools.docs import study_table


def test_the_page_is_what_the_committed_results_say() -> None:
    assert study_table.main(["--check"]) == 0


def test_a_page_that_says_something_else_is_written_anew(tmp_path, monkeypatch, capsys) -> None:
    page = study_table.PAGE.read_text(encoding="utf-8")
    begin, end = markers(study_table.STUDIES[0], study_table.TOOL)
    copy = tmp_path / "study.md"
    copy.write_text(f"{page.partition(begin)[0]}{begin}\nold\n{end}{page.partition(end)[2]}", encoding="utf-8")
    monkeypatch.setattr(study_table, "PAGE", copy)
    with pytest.raises(SdrrlError, match=r"study\.md: differs from .* run tools/docs/study_table\.py"):
        study_table.main(["--check"])
    assert study_table.main([]) == 0 and "written" in capsys.readouterr().out
    assert copy.read_text(encoding="utf-8") == page


def test_every_method_has_a_row_with_its_marks(finished) -> None:  # noqa: F811
    finished.statistics.level = 0.2  # eight items can be no surer
    text = study_table.section(collect(finished), "x")
    assert "27 of 27 (every other method" in text and "SDRRL is better on 27, worse on 0" in text
    means = text.partition("| SDRRL against |")[0]
    rows = {line.split(" | ")[0].strip("| "): line for line in means.splitlines() if line.startswith("| ")}
    assert rows["SFT"].endswith("| 0 / 9, 9 |") and "▼" in rows["SFT"]
    assert "▼" not in rows["SDRRL"] and "35.0 ± 0.7" in rows["SDRRL"]
    belebele = next(line for line in text.splitlines() if line.startswith("| belebele.por | SFT |"))
    assert belebele.endswith("| +20.0 (+20.0 to +20.0) | as in the paper |")


def test_what_is_missing_is_said_and_nothing_clear_lists_nothing(unfinished) -> None:  # noqa: F811
    unfinished.statistics.level = 0.001
    text = study_table.section(collect(unfinished), "x")
    assert "**Not measured yet: no_cross-1, sdrrl-2, sft-2, no_cross-2.**" in text
    assert "correction: 0 of " in text and text.endswith("In brackets: beyond chance.")


def held_out_study(code: str, name: str, differences: dict[str, tuple[str, float, float]]) -> dict[str, Any]:
    """A study of one ablation: id -> (better, difference, half of its interval); ``{t}`` is the target language."""
    measures = [
        {
            "id": key.format(t=code), "group": "Held-out data", "title": f"{key.split('.')[0]}, {name}", "unit": "BLEU",
            "better": better,
            "comparisons": {study_table.ABLATION: {"difference": d, "interval": [d - half, d + half]}},
        }
        for key, (better, d, half) in differences.items()
    ]  # fmt: skip
    other = {**measures[0], "id": f"mkqa.{code}", "group": "Benchmarks"}
    lost = {**measures[0], "id": "lost", "comparisons": {}}
    return {"languages": {"target": {"code": code, "name": name}}, "measures": [*measures, other, lost]}


def test_the_costs_of_an_ablation_in_two_studies() -> None:
    """Worse is more, whichever way a measure goes; half widths of 3 and 4 give 5."""
    good = held_out_study(
        "por",
        "Portuguese",
        {"bleu.eng-{t}": ("higher", -2.0, 3.0), "off.{t}": ("lower", 1.0, 0.3), "only": ("lower", 0, 1)},
    )
    noisy = held_out_study("spa", "Spanish", {"bleu.eng-{t}": ("higher", -7.5, 4.0), "off.{t}": ("lower", 0.5, 0.3)})
    lines = study_table.costs(good, noisy).splitlines()
    assert lines[2:] == [
        "| bleu, target language (BLEU) | +2.0 | +7.5 | **+5.5 (+0.5 to +10.5)** |",
        "| off, target language (BLEU) | +1.0 | +0.5 | **−0.5 (−0.9 to −0.1)** |",
        "",
        "Of these 2 measures leaving them out costs more in Spanish on 1 and more in Portuguese on 1; on 0 the "
        "interval holds 0. The intervals are not corrected for their number.",
    ]
