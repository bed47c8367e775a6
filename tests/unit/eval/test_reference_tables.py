"""The paper's tables as data: every average recomputed from its row, and figures that one table takes from others."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.text.languages import LANGUAGES, PAPER_LANGUAGES
from sdrrl_nemo.data.text.templates import completion_question, translation_question
from sdrrl_nemo.eval import reference
from sdrrl_nemo.eval.reference import Average, Published, averages, load, load_all, published
from tests.launch import ROOT

HEADING = "## Published averages that do not follow from their rows\n"
DOCUMENT = (ROOT / "docs/paper/README.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
SIZES = {2: 150, 3: 300, 4: 140, 5: 100, 6: 24, 7: 50, 8: 40, 9: 60, 10: 80, 11: 30, 12: 4, 14: 120, 15: 240}
NOT_FOLLOWING = {8: 1, 9: 1, 10: 20}
L7, SEA = "LLaMA-2-7B", "SeaLLM-7B"


def document_row(average: Average) -> str:
    """The line of docs/paper/README.md for an average that does not follow from its row."""
    x = average.last
    cells = (x.table, x.method, x.metric, x.direction, f"{x.value:.2f}", f"{average.recomputed:.2f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def test_every_table_is_whole() -> None:
    assert {t: len(load(t)) for t in reference.NUMERIC} == SIZES
    for table in reference.NUMERIC:
        keys = Counter((x.model, x.method, x.benchmark, x.metric, x.language, x.direction) for x in load(table))
        assert set(keys.values()) == {1}, table
    assert {x.language for x in load_all()} - {"avg"} <= set(LANGUAGES)
    assert {x.language for x in load_all()} >= set(PAPER_LANGUAGES) - {"eng", "fra"}
    assert all(0 <= x.value <= 100 for x in load_all())


@pytest.mark.parametrize("table", reference.AVERAGED)
def test_published_averages_follow_from_their_rows_or_the_document_says_so(table: int) -> None:
    found = averages(table)
    assert sum(len(a.row) + 1 for a in found) == len(load(table))
    wrong = [a for a in found if not a.follows]
    assert len(wrong) == NOT_FOLLOWING.get(table, 0)
    for average in wrong:
        assert document_row(average) in DOCUMENT
    assert DOCUMENT.count(f"\n| {table} | ") == len(wrong)


def test_table_10_averages_leave_thai_out() -> None:
    for average in averages(10):
        row = dict(average.row)
        assert list(row) == ["ind", "tha", "khm"]
        assert average.last.value == pytest.approx((row["ind"] + row["khm"]) / 2, abs=0.00501)


@pytest.mark.parametrize("method", ["SFT", "T-SFT", "CIT", "XCOT", "SDRRL"])
def test_table_7_repeats_the_averages_of_tables_8_to_11(method: str) -> None:
    metrics = {"BELEBELE": "accuracy", "XL-SUM": "ROUGE-L", "FLORES": "BLEU", "MKQA": "F1"}
    for direction, flores in (("target", "en-xx"), ("english", "xx-en")):
        row = {x.benchmark: x.value for x in load(7) if (x.method, x.direction) == (method, direction)}
        for benchmark, metric in metrics.items():
            way = flores if benchmark == "FLORES" else direction
            assert row[benchmark] == published(SEA, method, benchmark, metric, way)


def test_the_full_methods_row_of_table_6_is_made_of_tables_2_to_5() -> None:
    row = {(x.benchmark, x.direction): x.value for x in load(6) if x.method == "SDRRL"}
    for direction, flores in (("target", "en-xx"), ("english", "xx-en")):
        assert row["NLU", direction] == published(L7, "SDRRL", "BELEBELE", "accuracy", direction)
        parts = [
            published(L7, "SDRRL", "FLORES", "BLEU", flores),
            published(L7, "SDRRL", "XL-SUM", "ROUGE-L", direction),
            published(L7, "SDRRL", "MKQA", "F1", direction),
        ]
        assert row["NLG", direction] == pytest.approx(sum(p for p in parts if p is not None) / 3, abs=0.01)


def test_the_gains_of_table_12_are_those_of_three_languages() -> None:
    def mean(benchmark: str, metric: str, direction: str, method: str) -> float:
        wanted = (L7, method, benchmark, metric, direction)
        found = [published(*wanted, language) for language in ("ind", "jpn", "kor")]
        values = [x for x in found if x is not None]  # MKQA has no Indonesian
        assert len(values) == (2 if benchmark == "MKQA" else 3)
        return math.fsum(values) / len(values)

    def gain(*parts: tuple[str, str, str]) -> float:
        return math.fsum(mean(*p, "SDRRL") - mean(*p, "SFT") for p in parts) / len(parts)

    table = {x.benchmark: x.value for x in load(12) if x.method == "SDRRL from eng"}
    assert table["NLU"] == pytest.approx(gain(("BELEBELE", "accuracy", "target")), abs=0.00501)
    nlg = gain(("FLORES", "BLEU", "en-xx"), ("XL-SUM", "ROUGE-L", "target"), ("MKQA", "F1", "target"))
    assert table["NLG"] == pytest.approx(nlg, abs=0.01)


def test_figures_are_found_by_what_they_are() -> None:
    assert published(L7, "XCOT", "FLORES", "BLEU", "en-xx", "ces") == 23.11
    assert published("LLaMA-2-13B", "SDRRL", "BELEBELE", "accuracy", "target") == 59.81
    assert published(L7, "SFT", "XL-SUM", "ROUGE-2", "target") is None
    first = load(2)[0]
    assert first == Published(2, L7, "SFT", "BELEBELE", "accuracy", "ces", "target", 49.33)


def test_texts_of_tables_1_and_13() -> None:
    translation, completion = reference.templates()
    assert translation.question == translation_question("The quick brown fox jumps over the lazy dog.", "eng", "ind")
    assert completion.question == completion_question("Sang rubah cokelat cepat", "ind")
    cases = reference.cases()
    assert [c.language for c in cases] == ["hun", "slv", "bul"]
    assert cases[0].before.startswith("A DNA (deoxyribonucleic acid)")
    assert all(len(c.before) > 200 and len(c.after) > 300 for c in cases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table,model\n2,x\n", "line 2: columns table, model; they must be table, model, method"),
        ("{head}\n2,m,SFT,B,a,ces,target\n", "line 2: not as many cells"),
        ("{head}\n2,m,SFT,B,a,ces,target,x1\n", "line 2: value 'x1' is no number"),
        ("{head}\n3,m,SFT,B,a,ces,target,1\n", "line 2: table '3'"),
        ("{head}\n2,m,SFT,B,a,ces,up,1\n", "direction 'up' is wrong"),
    ],
)
def test_broken_files_are_named_with_their_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "table,model,method,benchmark,metric,language,direction,value"
    (tmp_path / "table2.csv").write_text(text.format(head=head), encoding="utf-8")
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    with pytest.raises(SdrrlError, match=message):
        load.__wrapped__(2)


def test_tables_without_figures() -> None:
    with pytest.raises(SdrrlError, match="table 13 has no figures; those that have: 2, 3,"):
        load(13)
