"""The data card of real small runs: figures agree with the files, texts are escaped, draws do not depend on order."""

from __future__ import annotations

import json
import random
import re
import shutil
import tracemalloc
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, read_jsonl, write_json, write_jsonl
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.validation import import_plugins
from sdrrl_nemo.report.card_facts import (
    Draw,
    base_name,
    binned,
    collect,
    log_edges,
    plain_reason,
    quantile,
    read_rejects,
    read_texts,
)
from sdrrl_nemo.report.data_card import (
    LONG,
    licence_rows,
    make_view,
    markdown_cell,
    markdown_fence,
    render,
    restrictions,
    write_data_card,
)
from tests.unit.data.tiny_run import tiny_config
from tools.docs.data_card import main as card_tool
from tools.preprocess_sdrrl import write_card

NASTY = '<script>alert("1")</script> & <img src=x onerror="y"> | a\n```\n</div>\n````\n&lt;kept&gt;'


def finished_run(folder: Path, output: str, **changes: Any) -> Path:
    """A finished set of the tiny engines."""
    from tools.preprocess_sdrrl import preprocess

    path = tiny_config(folder, output)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes), encoding="utf-8")
    config = load_config(PreprocessConfig, str(path), [])
    import_plugins(config.plugins)
    preprocess(config, Path(config.output_dir))
    return Path(config.output_dir)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One pair, several pairs, and a baseline. The tiny identifier knows Portuguese only: Czech is not judged."""
    folder = tmp_path_factory.mktemp("card")
    several = {"target_languages": ["por", "ces"], "by_pair": {"eng-ces": {"language_id": {"min_letters": 10000}}}}
    return {
        "one": finished_run(folder, "one"),
        "several": finished_run(folder, "several", **several),
        "sft": finished_run(folder, "sft", method="sft"),
    }


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the finished set of one pair, to be spoilt."""
    return Path(shutil.copytree(runs["one"], tmp_path / "set"))


def rewrite(path: Path, change: Any) -> list[dict[str, Any]]:
    """Replace the rows of a JSON Lines file by ``change(rows)``."""
    rows = change([row for _, row in read_jsonl(path)])
    write_jsonl(path, rows)
    return list(rows)


class Page(HTMLParser):
    """What a browser would make of the page: tags with attributes, and the text of every ``div.text``."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[dict[str, str | None], str]] = []
        self._open = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "div" and dict(attrs).get("class") == "text":
            self.texts.append((dict(attrs), ""))
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "div"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[-1] = (self.texts[-1][0], self.texts[-1][1] + data)


@pytest.mark.parametrize("name", ["one", "several", "sft"])
def test_page_loads_nothing_and_shows_every_subset(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    path = write_data_card(runs[name], tmp_path)
    html, markdown = path.read_text(encoding="utf-8"), (tmp_path / "data_card.md").read_text(encoding="utf-8")
    tags = Page(html).tags
    for tag, attributes in tags:
        assert tag not in {"script", "iframe", "object", "embed", "img", "audio", "video", "base", "form"}
        assert not {"src", "srcset", "action", "background"} & set(attributes)
        for key in ("href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:,"))
        assert not any(key.startswith("on") for key in attributes)
    css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in css and "@import" not in css
    assert {a["id"] for t, a in tags if t == "section" and "id" in a} >= {"subsets", "stages", "licences", "samples"}
    targets = {a["href"][1:] for t, a in tags if t == "a"}
    assert targets <= {a["id"] for _, a in tags if "id" in a}
    for subset, facts in read_json(runs[name] / "stats.json")["subsets"].items():
        shown = min(20, facts["samples"])
        assert f"<strong>{subset}</strong> ({shown})" in html
        assert f"### {subset}\n" in markdown
        assert f"{facts['tokens']:,}" in html and f"{facts['tokens']:,}" in markdown


def test_figures_are_those_of_the_files(runs: dict[str, Path]) -> None:
    facts = collect(runs["several"], 20, 10)
    view = make_view(facts)
    stats = read_json(runs["several"] / "stats.json")
    rows = [row for _, row in read_jsonl(runs["several"] / "transfer_set.jsonl")]
    assert sum(k["samples"] for k in view["kinds"]) == len(rows) == stats["packing"]["samples"]
    assert sum(k["of_tokens"] for k in view["kinds"]) == pytest.approx(1)
    by_pair = {(pair, kind): n for pair, counts in view["by_pair"]["samples"].items() for kind, n in counts.items()}
    assert by_pair == Counter((r["pair"], base_name(r["subset"])) for r in rows)
    answered = Counter(r["answer_language"] for r in rows)
    assert {x["code"]: x["answers"] for x in view["languages"]} == answered
    assert [x["code"] for x in view["languages"]] == ["eng", "por", "ces"]
    for i, name in enumerate(facts.names):
        sizes = np.arange(facts.lengths.question.shape[1])
        question, answer = facts.lengths.question[i], facts.lengths.answer[i]
        assert question.sum() == answer.sum() == stats["subsets"][name]["samples"]
        assert int((answer * sizes).sum()) == stats["subsets"][name]["answer_tokens"]
        assert int(((answer + question) * sizes).sum()) == stats["subsets"][name]["tokens"]
    assert facts.lengths.fullness.sum() == stats["packing"]["packs"]
    for stage in view["stages"]:
        named = [s for s in stats["stages"] if base_name(s["name"]) == stage["name"]]
        assert (
            stage["in"] - stage["out"]
            == sum(r["rows"] for r in stage["reasons"])
            == sum(s["in"] - s["out"] for s in named)
        )
    assert sum(g["count"] for g in view["rejects"]) == sum(1 for _ in read_jsonl(runs["several"] / "rejects.jsonl"))
    assert all(len(g["rows"]) == min(10, g["count"]) for g in view["rejects"])


def test_scores_switching_and_languages_of_each_pair(runs: dict[str, Path]) -> None:
    facts = collect(runs["several"], 3, 3)
    view = make_view(facts)
    stages = {s["name"]: s for s in facts.stats["stages"]}
    assert [s["pair"] for s in view["scores"]] == ["eng-por", "eng-ces"]
    for score, raw in zip(view["scores"], facts.scores, strict=True):
        stage = stages[f"quality.{score['pair']}"]
        assert (score["scored"], score["below"]) == (stage["in"], stage["in"] - stage["out"]) and score["below"] > 0
        counted = sum((c for c in raw.counts.values()), Counter())
        assert sum(n for b, n in counted.items() if b < 10) == score["below"]  # tau is 0.1, a bin is 0.01
        assert score["tau"] == 0.1 and "tau = 0.1" in score["chart"]
    for row in view["switching"]:
        notes = stages[f"code-switch.{row['pair']}"]["notes"]
        assert row["rate"] == notes["tokens replaced"] / notes["tokens in the dictionary"] and row["wanted"] == 0.15
    assert set(view["switched"]) == {"LL", "TL", "LT", "TT"}
    off = {r["pair"]: dict(r["others"]) for r in view["identified"]}
    dropped = stages["language-id.eng-por"]["dropped"]["off-target"]
    assert off == {"eng-por": {"another language": dropped}, "eng-ces": {}} and dropped > 0


def test_texts_are_shown_whole_and_never_as_markup(copy: Path) -> None:
    texts = {"LL": NASTY, "TT": "palavra <b>" * LONG}

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"answer": texts[row["subset"]]} if row["subset"] in texts else row for row in rows]

    rewrite(copy / "transfer_set.jsonl", spoil)
    rewrite(copy / "rejects.jsonl", lambda rows: [row | {"reason": "</summary><script>", "key": '"><'} for row in rows])
    html = write_data_card(copy).read_text(encoding="utf-8")
    page = Page(html)
    assert "<script" not in html and not {"b", "img", "script"} & {tag for tag, _ in page.tags}
    shown = {(a["lang"], text) for a, text in page.texts if a["dir"] == "auto"}
    assert ("en", NASTY) in shown and ("pt", texts["TT"]) in shown
    assert len(page.texts) == sum(a["dir"] == "auto" for a, _ in page.texts)
    markdown = (copy / "data_card.md").read_text(encoding="utf-8")
    assert f"`````text\n{NASTY}\n`````" in markdown
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside and "&lt;script&gt;" in outside


@pytest.mark.parametrize("name", ["one", "several", "sft"])
def test_markdown_tables_have_whole_rows(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    write_data_card(runs[name], tmp_path, samples=0)
    lines = (tmp_path / "data_card.md").read_text(encoding="utf-8").split("\n")
    tables = 0
    for above, line in pairwise(lines):
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert cells == len(re.findall(r"(?<!\\)\|", above)) or not above
            tables += line.startswith("|:")
    assert tables >= 5


@given(st.text())
def test_markdown_cells_and_fences_hold_any_text(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell and not re.search(r"(?<!\\)(\\\\)*[|`]", cell) and "<" not in cell
    first, body, last = re.fullmatch(r"(`+)text\n(.*)\n(`+)", markdown_fence(text), re.DOTALL).groups()
    assert first == last and body == text and first not in text


@settings(max_examples=40)
@given(st.lists(st.integers(0, 500), unique=True, min_size=1), st.integers(0, 8), st.randoms())
def test_draws_depend_on_content_alone(keys: list[int], size: int, rng: random.Random) -> None:
    def drawn(order: list[int], seed: int = 3) -> list[int]:
        draw = Draw(seed, "test", size)
        for key in order:
            draw.offer("g", str(key), {"n": key})
        return [row["n"] for row in draw["g"]]

    shuffled = keys.copy()
    rng.shuffle(shuffled)
    first = drawn(keys)
    assert first == drawn(shuffled) and len(first) == min(size, len(keys))
    kept = [k for k in keys if k in first or rng.random() < 0.5]
    assert drawn(kept) == first  # rows that were not drawn change nothing


def test_draws_are_fair_and_follow_the_seed() -> None:
    hits: Counter[int] = Counter()
    for seed in range(400):
        draw = Draw(seed, "test", 5)
        for key in range(20):
            draw.offer("g", str(key), {"n": key})
        hits.update(row["n"] for row in draw["g"])
    assert hits.total() == 2000
    assert sum((hits[k] - 100) ** 2 / 75 for k in range(20)) < 45.3  # chi-square, 19 degrees of freedom: p = 0.0006


def test_same_set_in_any_order_gives_the_same_card(runs: dict[str, Path], copy: Path, tmp_path: Path) -> None:
    write_data_card(runs["one"], tmp_path / "a", samples=4)
    for name in ("transfer_set.jsonl", "rejects.jsonl"):
        rewrite(copy / name, lambda rows: random.Random(5).sample(rows, len(rows)))
    write_data_card(copy, tmp_path / "b", samples=4)
    for name in ("data_card.html", "data_card.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_card_without_stages_or_rejects_file(copy: Path, tmp_path: Path) -> None:
    rejects = make_view(collect(copy, 2, 4))["rejects"]
    (copy / "rejects.jsonl").unlink()
    assert make_view(collect(copy, 2, 4))["rejects"] == rejects  # from the stages
    shutil.rmtree(copy / "stages")
    view = make_view(collect(copy, 2, 4))
    assert view["rejects"] == [] and view["scores"] == [] and view["switching"][0]["wanted"] is None
    html = render("data_card.html.j2", view, autoescape=True)
    assert "No row was rejected" in html and 'id="quality"' not in html and 'href="#quality"' not in html


def write_many(path: Path, rows: int) -> Path:
    """A transfer set of ``rows`` samples in one subset, and as many rejects beside it."""
    about = {"subset": "LL", "pair": "eng-por", "question_language": "eng", "answer_language": "eng", "switched": 1}
    path.mkdir()
    write_jsonl(path / "transfer_set.jsonl", ({**about, "key": f"{i:016x}", "answer": "x" * 200} for i in range(rows)))
    reject = {"stage": "quality", "detail": "0.1 < 0.8", "source": "y" * 200}
    write_jsonl(path / "rejects.jsonl", ({**reject, "reason": f"r{i % 500}", "key": str(i)} for i in range(rows)))
    return path


def peak_of_reading(path: Path, rows: int) -> int:
    stats = {"subsets": {"LL": {"samples": rows}}, "stages": [], "pairs": ["eng-por"]}
    tracemalloc.start()
    try:
        texts = read_texts(path / "transfer_set.jsonl", stats, Draw(1, "t", 20))
        rejects = read_rejects(path, stats, ("LL",), Draw(1, "r", 10))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(texts.draw["LL"]) == 20 and texts.subsets["LL"].rows == rows
    assert len(rejects.counts) == 300 and rejects.counts.total() + rejects.not_drawn == rows
    return peak


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    small = peak_of_reading(write_many(tmp_path / "small", 6_000), 6_000)
    large = peak_of_reading(write_many(tmp_path / "large", 24_000), 24_000)
    assert large < small * 1.1, (small, large)


@given(st.lists(st.integers(0, 300), min_size=1), st.sampled_from([0.0, 0.25, 0.5, 0.95, 1.0]))
def test_quantiles_and_bins_of_counts(values: list[int], q: float) -> None:
    counts = np.bincount(values, minlength=301)
    assert quantile(counts, q) == np.quantile(values, q, method="inverted_cdf")
    edges = log_edges(max(values))
    assert edges[-1] > max(values) and edges[:6] == [1, 2, 3, 4, 6, 8][: len(edges)]
    assert all(1 < b / a <= 2 for a, b in pairwise(edges))
    assert sum(binned(counts, edges)) == sum(v > 0 for v in values)


def test_reasons_of_pairs_are_counted_together() -> None:
    names = ("TT.eng-por", "mt")
    assert plain_reason("TT.eng-por: duplicate sample", names) == "TT: duplicate sample"
    assert plain_reason("mt: longer than seq_length", names) == "mt: longer than seq_length"
    assert plain_reason("error: ValueError", names) == "error: ValueError"


@pytest.mark.parametrize(
    ("licence", "noncommercial", "said"),
    [
        ("CC-BY-NC-4.0", False, "Not for commercial use: the licence of translator t (CC-BY-NC-4.0) forbids it."),
        ("CC-BY-NC-SA-4.0", False, "Share alike: translator t (CC-BY-NC-SA-4.0)"),
        ("house terms", True, "Not for commercial use: the licence of translator t (house terms) forbids it."),
        ("GPL-3.0-or-later", False, "Share alike: translator t"),
        ("unstated", False, "No licence is stated for translator t (unstated)"),
        ("Apache-2.0", False, "No licence that the run recorded forbids commercial use."),
        ("NCSA", False, "No licence that the run recorded forbids commercial use."),
    ],
)
def test_restrictions(licence: str, noncommercial: bool, said: str) -> None:
    engine = {"role": "translator", "name": "t", "for": "eng-por", "identity": "t/1", "licence": licence}
    found = restrictions(licence_rows({"engines": [engine | {"noncommercial": noncommercial}]}))
    assert any(sentence.startswith(said) for sentence in found)
    assert any("instruction set" in sentence for sentence in found)
    alpaca = {"role": "instructions", "name": "alpaca", "licence": "CC-BY-NC-4.0"}
    both = restrictions(licence_rows({"engines": [engine], "licences": [alpaca]}))
    assert both[0].startswith("Not for commercial use") and "instruction set alpaca (CC-BY-NC-4.0)" in both[0]


def broken_request(folder: Path) -> None:
    stats = read_json(folder / "stats.json")
    write_json(folder / "stats.json", stats | {"request": "0" * 16})


def old_stats(folder: Path) -> None:
    stats = read_json(folder / "stats.json")
    del stats["pairs"]
    write_json(folder / "stats.json", stats)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda d: (d / "stats.json").unlink(), "no run has finished here"),
        (lambda d: (d / "transfer_set.jsonl").unlink(), "transfer_set.jsonl: no such file"),
        (lambda d: (d / "packed/train.manifest.json").unlink(), "train.manifest.json: no such file"),
        (lambda d: (d / "packed/train.answer_tokens.npy").unlink(), "train.answer_tokens.npy: no such file"),
        (lambda d: rewrite(d / "transfer_set.jsonl", lambda rows: rows[1:]), "where stats.json says"),
        (lambda d: rewrite(d / "transfer_set.jsonl", lambda rows: [{"subset": "?"}]), "line 1: '?' is unknown"),
        (lambda d: np.save(d / "packed/train.subset.npy", np.zeros(3, np.uint8)), "differ in length"),
        (broken_request, "of different runs"),
        (old_stats, "no 'pairs' in it"),
    ],
)
def test_bad_sets_are_one_sentence(copy: Path, spoil: Any, message: str) -> None:
    spoil(copy)
    with pytest.raises(SdrrlError, match=re.escape(message)) as caught:
        write_data_card(copy)
    assert "\n" not in str(caught.value) and not (copy / "data_card.html").exists()


def test_tool_and_the_end_of_a_run(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card_tool(["--data", str(copy), "--output", str(tmp_path / "o"), "--samples", "2"]) == 0
    assert capsys.readouterr().out == f"data card: {tmp_path / 'o' / 'data_card.html'}\n"
    assert "<strong>LL</strong> (2)" in (tmp_path / "o/data_card.html").read_text(encoding="utf-8")
    with pytest.raises(SdrrlError, match="-1 samples"):
        card_tool(["--data", str(copy), "--samples", "-1"])
    write_card(str(copy))
    assert (copy / "data_card.md").is_file()
    (copy / "data_card.html").unlink()
    (copy / "data_card.html").mkdir()  # cannot be replaced by a file: the set stays, the run has not failed
    write_card(str(copy))
    said = capsys.readouterr()
    assert said.err.startswith("warning: no data card") and said.err.count("\n") == 1
    assert json.loads((copy / "stats.json").read_text(encoding="utf-8"))["method"] == "sdrrl"
