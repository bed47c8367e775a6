"""A set of conversations of three exchanges through the whole of preprocessing, and its data card."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.chosen_engines import Engines
from sdrrl_nemo.data.config import PreprocessConfig, TurnsConfig
from sdrrl_nemo.data.execution import SerialExecutor
from sdrrl_nemo.data.execution.stage_runner import NO_INPUT, Runner
from sdrrl_nemo.data.packing.packed import TokenizedSample
from sdrrl_nemo.data.packing.shown_mask import ShownMasks
from sdrrl_nemo.data.readers import content_of
from sdrrl_nemo.data.stages.ingest import Ingest
from sdrrl_nemo.data.steps import Steps
from sdrrl_nemo.data.validation import import_plugins
from sdrrl_nemo.eval.readers.held_out_files import read_held_out
from sdrrl_nemo.report.data_card import write_data_card
from tests.unit.data.tiny_engines import MARK, number_of
from tests.unit.data.tiny_run import tiny_config, write_rows
from tools.preprocess_sdrrl import preprocess

SYSTEM = "Be brief."


def records(count: int) -> list[dict[str, Any]]:
    """Conversations of three exchanges, every third behind a system turn; single ones, and some that cannot be used."""
    rows: list[dict[str, Any]] = []
    for i in range(count):
        texts = [f"the question {i} turn {k} about the number {i * k + 7}" for k in range(6)]
        turns = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]
        rows.append({"messages": [*([{"role": "system", "content": SYSTEM}] if i % 3 == 0 else []), *turns]})
        single = [f"a single question number {i}", f"<think>hm</think>the single answer {i}\r\n"]
        rows.append(
            {"messages": [{"role": r, "content": t} for r, t in zip(("user", "assistant"), single, strict=True)]}
        )
    rows.append({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]})
    rows.append({"messages": [{"role": "user", "content": "half \ud83d"}, {"role": "assistant", "content": "a"}]})
    return rows


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    path = tiny_config(folder)
    write_rows(folder / "instructions.jsonl", records(24))
    config = yaml.safe_load(path.read_text())
    config["generation"]["engine"] = {"name": "tiny_talker"}
    config["packing"]["seq_length"] = 1024
    config["synth"] = {"mode": "both"}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    loaded = load_config(PreprocessConfig, path, ["subsets.answer_language=request"])
    import_plugins(loaded.plugins)
    with contextlib.redirect_stdout(io.StringIO()):
        preprocess(loaded, Path(loaded.output_dir))
    return Path(loaded.output_dir)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def turns_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(question before code-switching, answer) of each exchange, read from the file alone."""
    plain = [*row.get("earlier_plain", []), row["question_plain"]]
    answers = [*(e["answer"] for e in row.get("earlier", [])), row["answer"]]
    return list(zip(plain, answers, strict=True))


def test_every_sample_speaks_its_two_languages_in_all_turns(output: Path) -> None:
    rows = [r for r in lines(output / "transfer_set.jsonl") if r["combination"] in ("LL", "TL", "LT", "TT")]
    assert {(r["combination"], len(turns_of(r))) for r in rows} == {
        (c, n) for c in ("LL", "TL", "LT", "TT") for n in (1, 3)
    }
    for row in rows:
        for question, answer in turns_of(row):
            assert (MARK in question, MARK in answer) == tuple(letter == "T" for letter in row["combination"])
        asked = [*(e["question"] for e in row.get("earlier", [])), row["question"]]
        request = {"TL": "\nAnswer in English.", "LT": "\nAnswer in Portuguese."}.get(row["combination"], "")
        assert all(q.endswith(request) for q in asked)
        assert row.get("system") in (None, SYSTEM)
    assert sum("system" in r for r in rows) >= 8
    keys = [r["key"] for r in lines(output / "transfer_set.jsonl")]
    assert len(set(keys)) == len(keys)


def test_y_is_the_sets_and_y_hat_the_models_answer_after_its_own(output: Path) -> None:
    given = {}
    for record in records(24)[:-2]:
        contents = [m["content"] for m in record["messages"] if m["role"] != "system"]
        given[contents[0]] = contents
    seen = Counter[str]()
    for row in lines(output / "transfer_set.jsonl"):
        if row["combination"] != "LL" or "earlier" not in row:
            continue
        turns = turns_of(row)
        seen[row["origin"]] += 1
        assert [q for q, _ in turns] == given[turns[0][0]][::2]
        if row["origin"] == "y":
            assert [a for _, a in turns] == given[turns[0][0]][1::2]
            continue
        before, shown = "none", 1 + ("system" in row)
        for _, answer in turns:
            assert answer == f"Answer after {shown} turns, number {before}."
            before, shown = str(number_of(answer)), shown + 2
    assert seen["y"] > 10
    assert seen["y_hat"] > 10


def test_held_out_conversations_are_asked_by_their_first_question(output: Path) -> None:
    rows = lines(output / "heldout/eng-por/questions.jsonl")
    assert {frozenset(r) for r in rows} == {
        frozenset(("key", "question", "answer", "question_target", "answer_target"))
    }
    assert any("turn 0" in r["question"] and "turn 1" in r["answer"] for r in rows)
    used = {turns_of(r)[0][0] for r in lines(output / "transfer_set.jsonl") if "question_plain" in r}
    assert not used & {r["question"] for r in rows}
    assert len(read_held_out(output, "eng", "por").questions) == len(rows)


def test_counts_add_up_and_what_was_changed_is_counted(output: Path) -> None:
    stats = json.loads((output / "stats.json").read_text())
    stages = {s["name"]: s for s in stats["stages"]}
    for stage in stages.values():
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage["name"]
    ingest = stages["ingest"]
    assert ingest["dropped"] == {"field 'content' is null": 1, "half of a surrogate pair": 1}
    assert ingest["notes"]["blocks of thinking taken out"] == ingest["notes"]["texts with CRLF, now LF"] == 24
    synth = list((output / "stages").glob("sample-*"))
    rows = [r for folder in synth for path in folder.glob("*.rows.jsonl") for r in lines(path)]
    texts = sum(2 * (1 + len(r.get("earlier", []))) for r in rows)
    assert stages["translate"]["in"] == stages["quality"]["in"] == texts
    rejects = [r for r in lines(output / "rejects.jsonl") if r["stage"] == "quality"]
    assert {r.get("turn") for r in rejects} == {None, 1, 2}


def test_the_card_shows_turns_what_was_changed_and_the_mask_of_each_kind(output: Path, tmp_path: Path) -> None:
    stats = json.loads((output / "stats.json").read_text())
    kinds = [m["kind"] for m in stats["loss_masks"]]
    assert kinds == ["one exchange", "several exchanges", "several exchanges, system turn"]
    rows = {r["key"]: r for r in lines(output / "transfer_set.jsonl")}
    for shown in stats["loss_masks"]:
        row = rows[shown["key"]]
        learned = [p["text"] for p in shown["pieces"] if p["loss"]]
        assert len(learned) == 1 + len(row.get("earlier", []))
        assert learned[-1].startswith(row["answer"])
        assert row["question"] in shown["pieces"][-2]["text"]
        assert ("earlier" in row) == shown["kind"].startswith("several")
    write_data_card(output, tmp_path, samples=40)
    page, text = ((tmp_path / f"data_card.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    for card in (page, text):
        assert "half of a surrogate pair, rejected" in card
        assert "blocks of thinking taken out" in card
        assert "What carries loss" in card
        assert "several exchanges, system turn" in card
        assert "turn 2" in card
        assert SYSTEM in card
    assert page.count('<pre class="mask"') == 3
    counted = Counter(1 + len(r.get("earlier", [])) for r in rows.values())
    assert f"| {counted[1]} |" in text
    assert f"| 3 | {counted[3]} |" in text


def test_runs_of_loss_are_those_of_the_mask() -> None:
    def sample(key: str, mask: list[int]) -> TokenizedSample:
        return TokenizedSample(key, "LL", np.arange(len(mask), dtype=np.int32), np.asarray(mask, np.uint8))

    shown = ShownMasks(lambda ids: " ".join(map(str, ids)))
    samples = [
        ({"key": "b"}, sample("b", [0, 0, 1])),
        ({"key": "a"}, sample("a", [0, 1, 1])),
        ({"key": "c"}, sample("c", [0, 1, 1, 1])),
        ({"key": "d", "earlier": [{}], "system": "s"}, sample("d", [0, 0, 1, 0, 1, 1])),
    ]
    assert [s.key for s in shown.watch(samples)] == ["b", "a", "c", "d"]
    one, several = shown.table()
    assert (one["kind"], one["key"]) == ("one exchange", "a")  # the shortest, of equally short ones the first by key
    assert several["kind"] == "several exchanges, system turn"
    pieces = [(p["loss"], p["tokens"], p["text"]) for p in several["pieces"]]
    assert pieces == [(False, 2, "0 1"), (True, 1, "2"), (False, 1, "3"), (True, 2, "4 5")]


class OldIngest(Ingest):
    """As it was before conversations were read whole: the same settings, and the first exchange alone."""

    def __init__(self, config: PreprocessConfig) -> None:
        section = config.instructions
        super().__init__(section, content_of(section.path), config.seed, TurnsConfig(system="drop", most=1))

    def settings(self) -> Any:
        return Ingest(self.config, self.sha256, self.seed).settings()


@pytest.mark.parametrize("several", [True, False])
def test_a_finished_ingest_of_first_exchanges_is_made_anew(tmp_path: Path, several: bool) -> None:
    path = tiny_config(tmp_path)
    if several:
        write_rows(tmp_path / "instructions.jsonl", records(24))
    config = load_config(PreprocessConfig, path)
    steps = Steps(config, Engines.__new__(Engines), SerialExecutor())
    old = Runner(steps.runner.root).run(OldIngest(config), NO_INPUT)
    train, _ = steps.instructions("eng")
    assert any("earlier" in row for row in train.read()) == several
    assert [r.name for r in steps.runner.results] == ["ingest"]
    assert (steps.runner.results[0].directory == old.directory) is not several
    again, _ = Steps(config, Engines.__new__(Engines), SerialExecutor()).instructions("eng")
    assert again.fingerprint == train.fingerprint


def test_a_lower_share_holds_for_a_finished_ingest_too(tmp_path: Path) -> None:
    path = tiny_config(tmp_path)
    write_rows(tmp_path / "instructions.jsonl", records(24))

    def read(share: str) -> None:
        config = load_config(PreprocessConfig, path, [f"instructions.max_rejected={share}"])
        Steps(config, Engines.__new__(Engines), SerialExecutor()).instructions("eng")

    read("0.05")
    with pytest.raises(SdrrlError, match=r"line 49, messages\[2\]: field 'content' is null; 2 of 50 records"):
        read("0.01")
    assert len(list((tmp_path / "out/stages").iterdir())) == 1
