"""The document: means, spreads, comparisons, averages and orderings of scores whose answer is known."""

from __future__ import annotations

import json

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.reference import published
from sdrrl_nemo.study.config import benchmark_config
from sdrrl_nemo.study.measure import measure_stage
from sdrrl_nemo.study.plan import runs
from sdrrl_nemo.study.results import collect


def test_means_spreads_and_comparisons(finished):
    d = collect(finished)
    assert d["missing"] == []
    row = next(m for m in d["measures"] if m["id"] == "belebele.por")
    sft = row["values"]["sft"]
    assert sft["runs"] == {"1": pytest.approx(14.5), "2": pytest.approx(15.5)}
    assert sft["mean"] == pytest.approx(15.0) and sft["sd"] == pytest.approx(0.5**0.5)
    assert row["values"]["base"]["sd"] is None  # measured once
    c = row["comparisons"]["sft"]
    assert c["difference"] == pytest.approx(-20) and c["interval"] == [pytest.approx(-20)] * 2
    assert c["p"] == 2**-7 and "sdrrl" not in row["comparisons"]
    # 6 measures with values and 3 averages (NLU in both languages, NLG in the target one), 3 methods each
    assert d["statistics"]["tests"] == 3 * (6 + 3)
    # NLG's average has 24 items and three p of 2 / 501; the others' 8 items allow 2^-7 and no less
    assert c["p_holm"] == pytest.approx((27 - 3) * 2**-7)
    assert d["made"]["first"] <= d["made"]["last"] and d["made"]["commits"] == []


def test_verdicts_know_which_way_is_better(finished):
    finished.statistics.level = 0.2
    d = collect(finished)
    by_id = {m["id"]: m for m in d["measures"]}
    assert by_id["belebele.por"]["comparisons"]["sft"]["verdict"] == "worse"
    loss = by_id["loss.questions.por-por"]["comparisons"]["sft"]
    assert loss["difference"] > 0 and loss["verdict"] == "worse"
    finished.statistics.level = 0.01
    assert collect(finished)["measures"][0]["comparisons"]["sft"]["verdict"] == "no clear difference"


def test_a_measure_without_value_stays_empty(finished):
    row = next(m for m in collect(finished)["measures"] if m["id"] == "off_target.por")
    assert row["values"]["sft"] == {"mean": None, "sd": None, "runs": {"1": None, "2": None}}
    assert row["comparisons"] == {}


def test_averages_are_those_of_table_6(finished):
    d = collect(finished)
    found = {a["id"]: a for a in d["averages"]}
    assert set(found) == {"nlu.target", "nlu.english", "nlg.target"}  # English generation is not among the scores
    nlg = found["nlg.target"]
    assert nlg["parts"] == ["flores.eng-por.bleu", "xlsum.por.rougeL", "mkqa.por"]
    assert nlg["values"]["sdrrl"]["mean"] == pytest.approx(35.0)
    assert nlg["comparisons"]["no_cross"]["difference"] == pytest.approx(-10)


def test_orderings_beside_the_papers(finished):
    d = collect(finished)
    rows = {(r["measure"], r["method"]): r for r in d["orderings"]["rows"]}
    paper = published("LLaMA-2-7B", "SDRRL", "BELEBELE", "accuracy", "target", "por") - published(
        "LLaMA-2-7B", "SFT", "BELEBELE", "accuracy", "target", "por"
    )
    row = rows["belebele.por", "sft"]
    assert row["paper"] == pytest.approx(paper) and row["here"] == pytest.approx(20) and row["result"] == "holds"
    low, high = row["interval"]
    assert low <= row["here"] <= high and low == pytest.approx(20)  # 20 on each of its items
    assert rows["nlg.target", "no_cross"]["result"] == "holds"
    assert ("belebele.por", "no_cross") not in rows  # Table 2 has no ablation
    counts = d["orderings"]["counts"]
    assert counts["pairs"] == len(rows) == counts["holds"] and counts["reversed"] == 0
    assert d["published"]["figures"]["mkqa.por"] == {"sft": 39.29, "sdrrl": 41.12}


def test_a_reversed_ordering_is_called_so(finished):
    for run in runs(finished):
        path = run.scores / "measures.json"
        d = json.loads(path.read_text())
        d["measures"]["mkqa.por"]["items"] = [[-v, w] for v, w in d["measures"]["mkqa.por"]["items"]]
        path.write_text(json.dumps(d))
    rows = {(r["measure"], r["method"]): r["result"] for r in collect(finished)["orderings"]["rows"]}
    assert rows["mkqa.por", "sft"] == "reversed" and rows["belebele.por", "sft"] == "holds"


def test_what_is_missing_is_named(unfinished):
    d = collect(unfinished)
    assert d["missing"] == ["no_cross-1", "sdrrl-2", "sft-2", "no_cross-2"]
    states = {r["name"]: r["state"] for r in d["runs"]}
    assert states["sft-1"] == "measure" and states["sft-2"] == "not trained"
    assert set(d["measures"][0]["values"]) == {"base", "sdrrl", "sft"}


def test_nothing_measured_is_no_document(study):
    assert collect(study) is None


def test_runs_tell_tokens_and_curves_are_per_subset(finished):
    d = collect(finished)
    assert {(r["steps"], r["tokens"], r["training_seconds"]) for r in d["runs"]} == {(3, 300, 4.5)}
    assert d["curves"]["sft"]["1"] == [3.0, 1.5, 1.0]  # 6 / step, two subsets


def test_curves_of_a_run_that_took_the_mean_over_subsets_are_not_divided_again(finished):
    run = next(r for r in runs(finished) if (r.method, r.number) == ("sft", 1))
    (run.run_dir / "identity.json").write_text(json.dumps({"loss": {"normalise": "mean"}}))
    d = collect(finished)
    assert d["curves"]["sft"]["1"] == [6.0, 3.0, 2.0]
    assert d["curves"]["sft"]["2"] == [3.0, 1.5, 1.0]


def test_other_items_in_one_run_are_an_error(finished):
    path = runs(finished)[1].scores / "measures.json"
    d = json.loads(path.read_text())
    d["measures"]["mkqa.por"]["keys"][0] = "another"
    path.write_text(json.dumps(d))
    with pytest.raises(SdrrlError, match=r"its measure 'mkqa.por' has other items than the other runs'"):
        collect(finished)


def test_only_measurements_of_the_study_can_be_asked_for(study):
    with pytest.raises(SdrrlError, match=r"--stage: 'measure/sft-9' is no measurement of this study"):
        measure_stage(study, "measure/sft-9")


def test_a_study_without_benchmarks_has_none(study):
    assert benchmark_config(study) is None
