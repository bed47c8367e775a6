"""The study's page: whole, self-contained, escaped; what it says first follows from the figures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from sdrrl_nemo.report.study import (
    best_of,
    column_title,
    figure,
    findings,
    language_tables,
    render,
    short,
    signed,
    summary,
)
from sdrrl_nemo.report.study_charts import Dots, dot_chart, loss_curves
from sdrrl_nemo.study.results import collect
from tests.unit.study.conftest import finished, study, unfinished  # noqa: F401  fixtures

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '</svg><script>alert("x")</script>&'
VOID = {"meta", "link", "br", "input", "img", "hr"}


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order; SVG's own shapes may close themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs) -> None:
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()


def page(document) -> str:
    html = render(document)
    parser = Balanced()
    parser.feed(html)
    assert parser.open == [] and parser.scripts == 1  # our own; none from titles or answers
    return html


def test_the_page_needs_nothing_else(finished):  # noqa: F811
    html = page(collect(finished))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html) and "@import" not in html
    for part in ("results", "charts", "orderings", "published", "tests", "training", "samples", "origin"):
        assert html.count(f'id="{part}"') == 1 and f'href="#{part}"' in html
    assert "Not finished" not in html
    assert "A study &lt;of&gt; methods" in html and "from sft-1 &lt;/script&gt;" in html
    assert 'class="best">35.0' in html  # the reference's average of generation


def test_the_page_of_the_file_is_the_page(finished):  # noqa: F811
    document = collect(finished)
    names = [m["name"] for m in document["methods"]]
    assert names != sorted(names)
    again = render(json.loads(json.dumps(document, sort_keys=True)))
    ours, theirs = (html.partition('id="origin"')[0] for html in (render(document), again))  # before the configuration
    assert ours == theirs


def test_an_unfinished_study_says_so_first(unfinished):  # noqa: F811
    d = collect(unfinished)
    html = page(d)
    assert html.index("Not finished") < html.index('id="results"')
    assert "4 of 7 models are not measured yet: no_cross-1, sdrrl-2, sft-2, no_cross-2" in html
    assert summary(d).splitlines()[-1] == "missing: no_cross-1, sdrrl-2, sft-2, no_cross-2"


def test_findings_follow_from_the_figures(finished):  # noqa: F811
    finished.statistics.level = 0.2
    found = {f["title"]: f for f in findings(collect(finished))}
    assert found["The paper's orderings"]["state"] == "met"
    assert found["Comparisons beyond chance"]["sentence"].startswith("27 of 27 (every other method")
    against = found["SDRRL against SFT"]
    assert against["sentence"].startswith("Ahead on 6 of 6 measures; clearly better on 6, clearly worse on 0")
    assert against["state"] == "met"
    assert found["English is kept"]["state"] == "met"
    assert "SDRRL − D_TL, D_LT: 6 worse, 0 better of 6" in found["Taking a part away (clear differences)"]["sentence"]


def test_nothing_clear_leaves_the_question_open(finished):  # noqa: F811
    finished.statistics.level = 0.001
    found = {f["title"]: f for f in findings(collect(finished))}
    assert found["SDRRL against SFT"]["state"] == "" and found["The paper's orderings"]["state"] == ""


def test_tables_are_by_language_and_mark_the_best(finished):  # noqa: F811
    tables = language_tables(collect(finished))
    assert [t["language"]["code"] for t in tables] == ["por", "eng"]
    assert {m["language"] for m in tables[1]["columns"]} == {"eng"}
    assert tables[0]["best"]["mkqa.por"] == tables[0]["best"]["loss.questions.por-por"] == ["sdrrl"]
    assert tables[0]["best"]["off_target.por"] == []


def test_ties_share_the_best_place():
    values = {"a": {"mean": 1.0}, "b": {"mean": 1.0}, "c": {"mean": 2.0}, "d": {"mean": None}}
    assert best_of({"values": values, "better": "lower"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "unit", "plain", "difference"),
    [(12.345, "%", "12.3", "+12.3"), (-0.1234, "cosine", "-0.123", "−0.123"), (None, "%", "–", "–")],
)
def test_figures(value, unit, plain, difference):
    assert (figure(value, unit), signed(value, unit)) == (plain, difference)


def test_names_fit_their_place():
    assert short("SDRRL − D_TL and D_LT") == "− D_TL and D_LT" and short("Only D_mt and D_comp") == "Only D_mt and D_…"
    measure = {"title": "MKQA, token F1, Portuguese", "unit": "%", "better": "higher"}
    assert column_title(measure, "Portuguese") == "MKQA, token F1 (%)"
    measure = {"title": "Loss, Portuguese → Portuguese", "unit": "nats/token", "better": "lower"}
    assert column_title(measure, "Portuguese") == "Loss, Portuguese → Portuguese (nats/token, lower is better)"


def test_dots_stand_where_their_values_are():
    rows = [Dots(EVIL, 1.0, [0.0, 2.0], "reference", "1.0"), Dots("b", 2.0, [], "base", "2.0"),
            Dots("gone", float("nan"), [], "baseline", "–")]  # fmt: skip
    chart = ET.fromstring(str(dot_chart("t", rows, EVIL)))
    assert len(chart.findall(f"{SVG}g")) == 2 and not list(chart.iter(f"{SVG}script"))
    spread, *ticks = [line for line in chart.iter(f"{SVG}line") if line.get("class") == "range"]
    assert (float(spread.get("x1")), float(spread.get("x2"))) == (138.0, 310.0)  # the whole axis: 0 to 2
    assert [float(t.get("x1")) for t in ticks] == [138.0, 310.0]
    assert float(next(chart.iter(f"{SVG}circle")).get("cx")) == 310.0
    assert dot_chart("t", [], "x") == ""


def test_curves_have_a_line_a_seed_and_their_mean():
    curves = loss_curves({"sft": {"1": [3.0, 2.0, None], "2": [1.0, 2.0, 1.0]}}, {"sft": EVIL})
    chart = ET.fromstring(str(curves[0]["svg"]))
    classes = [line.get("class") for line in chart.findall(f"{SVG}polyline")]
    assert classes == ["thin s7", "thin s7", "line s2"]
    assert curves[0]["runs"] == 2
    assert loss_curves({}, {}) == []


def test_off_target_over_training_and_the_maps(finished):  # noqa: F811
    d = collect(finished)
    assert 'id="space"' not in page(d) and "#space" not in page(d)  # nothing was followed, nothing was drawn
    d["tracking"] = {"sdrrl": [[0, 50.0], [900, None], [1800, 25.0]], "sft": [[0, 50.0]]}
    cloud = {"points": [[0.0, 1.0], [2.0, 3.0]], "texts": ["What <is>?", EVIL]}
    d["maps"] = {"sft": {"source": cloud, "target": cloud}, "base": {"source": cloud, "target": cloud}}
    html = page(d)
    space = html[html.index('id="space"') : html.index('id="training"')]
    assert space.count("<svg") == 1 + 2 + 2 + 2  # chart, two keys of it, two languages, two maps
    assert "What &lt;is&gt;?" in space and EVIL not in space
    assert space.index("Base model</figcaption>") < space.index("SFT</figcaption>")


def test_the_choice_of_learning_rates_is_shown_with_its_losses(finished):  # noqa: F811
    document = collect(finished)
    assert document["learning_rates"] == {} and "Learning rates" not in page(document)
    document["configuration"]["learning_rates"] = {"grid": [1e-4, 3e-4], "steps": 15}
    rows = [{"lr": 1e-4, "loss": 2.0, "skipped_steps": 0}, {"lr": 3e-4, "loss": None, "skipped_steps": 1}]
    document["learning_rates"] = {"sft": {"lr": 1e-4, "grid": rows, "notes": [f"no finite loss with {EVIL}"]}}
    html = page(document)
    table = html[html.index("<h3>Learning rates") : html.index("<h3>Transfer sets")]
    assert "short run of 15 steps" in table and '<span class="best">2.0000</span>' in table
    assert "not finite" in table and "alert(&#34;x&#34;)" in table
    del document["learning_rates"]  # of an earlier version
    assert "Learning rates" not in page(document)
