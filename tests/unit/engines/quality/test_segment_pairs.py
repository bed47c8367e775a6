"""Texts judged by segments: what corresponds, that nothing is left out, and that no segment is too long."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.quality import comet
from sdrrl_nemo.data.engines.quality.comet import MOST_SUBWORDS, CometKiwi
from sdrrl_nemo.data.engines.quality.segment_pairs import assessment, fitting, segment_pairs
from sdrrl_nemo.data.stages.judge import Quality
from tests.launch import ROOT

POR = ("eng", "por")


@pytest.mark.parametrize(
    ("source", "translation", "languages", "expected"),
    [
        # as many sentences
        ("He came. She left.", "Ele veio. Ela saiu.", POR, [("He came.", "Ele veio."), ("She left.", "Ela saiu.")]),
        ("It is here. It is there.", "ここです。あそこです。", ("eng", "jpn"),
         [("It is here.", "ここです。"), ("It is there.", "あそこです。")]),
        # by line, and by sentence within a line
        ("One is here.\nTwo is there. Three too.", "Um cá.\nDois lá. Três também.", POR,
         [("One is here.", "Um cá."), ("Two is there.", "Dois lá."), ("Three too.", "Três também.")]),
        # two sentences became one
        ("The old house stood by the river. Nobody lived there. It was empty.",
         "A velha casa ficava junto ao rio e ninguém morava lá. Estava vazia.", POR,
         [("The old house stood by the river. Nobody lived there.",
           "A velha casa ficava junto ao rio e ninguém morava lá."), ("It was empty.", "Estava vazia.")]),
        # Thai writes no full stops: all sentences belong to its one
        ("It rains. We stay home.", "ฝนตก เราอยู่บ้าน", ("eng", "tha"), [("It rains. We stay home.", "ฝนตก เราอยู่บ้าน")]),
        # paragraphs agree where lines do not
        ("First one\nwrapped here.\n\nSecond one.", "Primeiro, numa linha.\n\nSegundo.", POR,
         [("First one\nwrapped here.", "Primeiro, numa linha."), ("Second one.", "Segundo.")]),
        # a sentence that was lost weighs on its neighbour
        ("He came home. She left at once. They met again.", "Ele voltou para casa. Eles encontraram-se de novo.", POR,
         None),
        # code on both sides is no translation
        ("Run it:\n```\nx = 'a b c'\n```\nDone.", "Execute:\n```\nx = 'a b c'\n```\nPronto.", POR,
         [("Run it:", "Execute:"), ("Done.", "Pronto.")]),
        ("12 + 3", "12 + 3", POR, [("12 + 3", "12 + 3")]),
        ("", "", POR, [("", "")]),
        ("Some text.", "", POR, [("Some text.", "")]),
    ],
)  # fmt: skip
def test_segments_that_correspond(
    source: str, translation: str, languages: tuple[str, str], expected: list[tuple[str, str]] | None
) -> None:
    found = segment_pairs(source, translation, languages)
    if expected is not None:
        assert found == expected
    else:
        assert all(a and b for a, b in found)
    assert "".join("".join(a for a, _ in found).split()) == "".join(source.split()).replace("```x='abc'```", "")
    assert "".join("".join(b for _, b in found).split()) == "".join(translation.split()).replace("```x='abc'```", "")


SENTENCE = st.sampled_from(
    ["The cat sleeps. ", "Why? ", "A long one, with clauses; and so on. ", "No.\n", "\n\n", "猫。"]
)
TEXT = st.lists(SENTENCE, max_size=9).map("".join)


@settings(deadline=None)
@given(TEXT, TEXT, st.integers(3, 40))
def test_nothing_is_left_out_whatever_the_texts(source: str, translation: str, limit: int) -> None:
    pairs = segment_pairs(source, translation, POR)
    parts = fitting(pairs, lambda asked: [len(a) + len(b) > limit for a, b in asked])
    for side, text in enumerate((source, translation)):
        assert "".join("".join(p[side] for p in parts).split()) == "".join(text.split())
    assert all(len(a) + len(b) <= max(limit, 4) for a, b in parts)


class StandIn:
    """In place of COMET's process: a word is a subword, and a segment longer than the encoder is refused."""

    def __init__(self) -> None:
        self.options = {"precision": "fp32"}
        self.seen: list[dict[str, str]] = []

    def lengths(self, segments: Sequence[dict[str, str]]) -> list[int]:
        return [sum(len(text.split()) + 2 for text in s.values()) for s in segments]

    def score(self, segments: Sequence[dict[str, str]]) -> list[float]:
        assert max(self.lengths(segments)) <= MOST_SUBWORDS
        self.seen += segments
        return [0.2 if "WRONG" in s["mt"] else 0.9 for s in segments]


def kiwi(tmp_path: Path, **options: str) -> tuple[CometKiwi, StandIn]:
    engine, scorer = CometKiwi(str(tmp_path), **options), StandIn()  # type: ignore[arg-type]
    engine._scorer = scorer  # type: ignore[assignment]
    return engine, scorer


def test_a_long_text_is_scored_to_its_end(tmp_path: Path) -> None:
    """Beyond the encoder's 512 subwords, where COMET itself would cut the text away."""
    source = "The fox runs over the hill. " * 200
    engine, scorer = kiwi(tmp_path)
    right, wrong = engine.assess([source] * 2, ["A raposa corre. " * 200, "A raposa corre. " * 199 + "WRONG."], POR)
    assert right.score == pytest.approx(0.9) and right.segments == 200
    assert wrong.minimum == 0.2 and right.minimum == 0.9 and 0.89 < wrong.score == wrong.mean < 0.9
    assert len(scorer.seen) == 2  # each different segment once
    strict, _ = kiwi(tmp_path, aggregate="min")
    assert [a.score for a in strict.assess([source], ["A raposa corre. " * 199 + "WRONG."], POR)] == [0.2]
    assert strict.identity != engine.identity


def test_a_sentence_longer_than_the_encoder_is_cut_in_parts_that_correspond(tmp_path: Path) -> None:
    engine, scorer = kiwi(tmp_path)
    source = ", ".join(f"word {n} of it" for n in range(400))
    translation = ", ".join(f"palavra {n}" for n in range(400))
    (found,) = engine.assess([source], [translation], POR)
    assert found.segments == len(scorer.seen) == 8
    assert " ".join(s["src"] for s in scorer.seen) == source
    assert " ".join(s["mt"] for s in scorer.seen) == translation
    shares = [len(s["src"]) / len(s["mt"]) for s in scorer.seen]
    assert max(shares) / min(shares) < 1.3


def test_rows_remember_mean_and_minimum(tmp_path: Path) -> None:
    engine, _ = kiwi(tmp_path)
    row = {
        "key": "k", "source_key": "s", "origin": "y", "question": "One is here. Two.", "answer": "Yes.",
        "question_target": "Um. WRONG.", "answer_target": "Sim.",
    }  # fmt: skip
    outcome = Quality("quality", engine, {}, 0.6, 8, POR).process([row])  # type: ignore[list-item]
    (out,) = outcome.rows
    assert out["question_segments"] == {"mean": out["question_quality"], "min": 0.2, "segments": 2}
    assert out["answer_segments"] == {"mean": 0.9, "min": 0.9, "segments": 1}


def test_the_mean_is_weighted_by_the_length_of_the_source() -> None:
    found = assessment([("a" * 30, "x"), ("b" * 10, "y")], [1.0, 0.0], "mean")
    assert (found.score, found.mean, found.minimum, found.segments) == (0.75, 0.75, 0.0, 2)
    assert assessment([("", "x")], [0.3], "mean").score == 0.3


def test_an_unknown_aggregate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SdrrlError, match=r"'cometkiwi': aggregate 'men' is unknown; did you mean 'mean'"):
        CometKiwi(str(tmp_path), aggregate="men")


def test_the_worker_counts_subwords_over_the_pipe(tmp_path: Path) -> None:
    """The real worker with a model of ours in the place of COMET's."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model.ckpt").write_bytes(b"")
    (tmp_path / "hparams.yaml").write_text("")
    program = tmp_path / "worker.py"
    program.write_text(
        "import importlib.util, sys, types\n"
        "from importlib import metadata\n"
        f"spec = importlib.util.spec_from_file_location('worker', {str(comet.WORKER)!r})\n"
        "worker = importlib.util.module_from_spec(spec); spec.loader.exec_module(worker)\n"
        "tokenizer = lambda texts, truncation: {'input_ids': [[0, *map(len, t.split()), 2] for t in texts]}\n"
        "worker.load = lambda options: types.SimpleNamespace(encoder=types.SimpleNamespace(tokenizer=tokenizer))\n"
        "worker.score = lambda model, rows, size: [len(r['src'].split()) / 1000 for r in rows]\n"
        "metadata.version = lambda name: '0'\n"
        "sys.argv = [sys.argv[0], sys.argv[-1]]\n"
        "worker.serve(worker.load, worker.score, worker.lengths, 'unbabel-comet')\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    engine = CometKiwi(str(tmp_path), python=str(python))
    source, translation = "word " * 900, "palavra " * 900
    (found,) = engine.assess([source], [translation], POR)
    assert found.segments == 4 and found.score == pytest.approx(0.225, abs=0.01)
    assert engine._scorer.lengths([{"src": "a b", "mt": "c"}]) == [7]
    engine._scorer.close()
    assert comet.WORKER.is_relative_to(ROOT)
