"""Of several translations the one that the estimator scores highest: choice, counts, refusals, a whole run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.chosen_engines import Engines
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.engines.base import QualityEstimator, Translator
from sdrrl_nemo.data.engines.best_of import BestOfTranslator
from sdrrl_nemo.data.engines.segmented_translator import SegmentedTranslator
from sdrrl_nemo.data.stages.translate import RERANKED
from sdrrl_nemo.data.validation import import_plugins, validate
from tests.unit.data.tiny_run import tiny_config
from tools.preprocess_sdrrl import preprocess


class Several(Translator):
    """Gives what a table says, or three numbered copies."""

    most_candidates = 3
    max_units = 40

    def __init__(self, table: dict[str, list[str]] | None = None) -> None:
        self.table = table or {}

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        return [found[0] for found in self.candidates(texts, source, target, 1)]

    def candidates(self, texts: Sequence[str], source: str, target: str, count: int) -> list[list[str]]:
        return [self.table.get(t, [f"{t} {n}" for n in range(3)])[:count] for t in texts]


class Judge(QualityEstimator):
    """Scores by a table and remembers what it was asked; the default is 0.5."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores, self.asked = scores, []  # type: ignore[var-annotated]

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        self.asked += list(zip(sources, translations, strict=True))
        return [self.scores.get(text, 0.5) for text in translations]


def best_of(table: dict[str, list[str]], scores: dict[str, float], count: int = 3) -> BestOfTranslator:
    return BestOfTranslator(Several(table), Judge(scores), count, "several")


@pytest.mark.parametrize(
    ("candidates", "scores", "kept", "reranked"),
    [
        (["a", "b", "c"], {"b": 0.9}, "b", 1),
        (["a", "b", "c"], {"c": 0.6, "b": 0.6}, "b", 1),  # a tie: the translator's order
        (["a", "b", "c"], {}, "a", 0),
        (["", "b", "c"], {"b": -1.0, "c": -2.0}, "b", 1),  # whatever its score, a finished one
        (["", "b", ""], {}, "b", 1),
        (["a", "a", "b"], {"b": 0.1}, "a", 0),
        (["", "", ""], {"": 1.0}, "", 0),
    ],
)
def test_the_best_finished_candidate_is_kept(
    candidates: list[str], scores: dict[str, float], kept: str, reranked: int
) -> None:
    engine = best_of({"text": candidates}, scores)
    assert engine.translate(["text"], "eng", "por") == [kept]
    assert (engine.reranked, engine.incomplete) == (reranked, kept == "")
    assert all(translation for _, translation in engine._estimator.asked)  # type: ignore[attr-defined]


def test_nothing_is_scored_where_there_is_no_choice() -> None:
    engine = best_of({"one": ["eins", "eins", ""], "": ["", "", ""]}, {})
    assert engine.translate(["one", ""], "eng", "deu") == ["eins", ""]
    assert engine._estimator.asked == []  # type: ignore[attr-defined]
    assert engine.incomplete == 0  # an empty text has an empty translation


def test_the_choice_is_made_segment_by_segment() -> None:
    table = {"One thing.": ["Eins A.", "Eins B."], "Two things.": ["Zwei A.", "Zwei B."]}
    engine = SegmentedTranslator(best_of(table, {"Eins B.": 0.9, "Zwei A.": 0.9}, 2))
    assert engine.translate(["One thing. Two things."], "eng", "deu") == ["Eins B. Zwei A."]
    assert engine.reranked == 1
    assert engine.translate(["One thing. " * 9], "eng", "deu") == ["Eins B. " * 9]


def test_count_and_estimator_are_in_the_identity() -> None:
    class Other(Judge):
        pass

    one, two = best_of({}, {}), best_of({}, {}, 2)
    assert one.identity != two.identity
    assert one.identity != BestOfTranslator(Several(), Other({}), 3, "several").identity
    assert "Several" in one.identity
    assert one.max_units == 40


def test_files_are_those_of_both(tmp_path: Path) -> None:
    """An edited estimator chooses otherwise, so what it chose is made again."""
    weights = tmp_path / "weights"
    weights.write_text("1")
    judge = Judge({})
    judge.files = lambda *languages: [weights]  # type: ignore[method-assign]
    engine = BestOfTranslator(Several(), judge, 3, "several")
    assert list(engine.files("eng", "por")) == [weights]
    before = engine.identity
    weights.write_text("22")
    assert engine.identity != before


def config(tmp_path: Path, *overrides: str) -> PreprocessConfig:
    config = load_config(PreprocessConfig, tiny_config(tmp_path), list(overrides))
    import_plugins(config.plugins)
    return config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["translation.candidates=0"], r"translation\.candidates: 0 is too small"),
        (["translation.candidates=2", "quality.engine.name=none"], r"2 candidates need a quality estimator"),
        (
            ["translation.candidates=2"],
            r"translator 'tiny' gives one translation a text; take nllb_ctranslate2 or nllb_hf",
        ),
        (
            ["translation.candidates=4", "translation.name=tiny_several"],
            r"translator 'tiny_several' searches with 3 beams; set translation\.options\.beams to 4 or more",
        ),
    ],
)
def test_refusals(tmp_path: Path, overrides: list[str], message: str) -> None:
    chosen = config(tmp_path, *overrides)

    def start() -> None:
        validate(chosen)
        Engines(chosen)

    with pytest.raises(SdrrlError, match=message):
        start()


def test_a_whole_run_counts_what_was_chosen_otherwise(tmp_path: Path) -> None:
    chosen = config(
        tmp_path, "translation.name=tiny_several", "translation.candidates=3", "quality.engine.name=tiny_taste"
    )
    preprocess(chosen, tmp_path / "out")
    stats = json.loads((tmp_path / "out/stats.json").read_text(encoding="utf-8"))
    (translate,) = [s for s in stats["stages"] if s["name"] == "translate"]
    assert translate["notes"][RERANKED] > 0
    rows = [json.loads(line) for line in (tmp_path / "out/transfer_set.jsonl").read_text("utf-8").splitlines()]
    answers = [row["answer"] for row in rows if row["subset"] == "TT"]
    assert answers
    assert all("[best]" in text and "[good]" not in text for text in answers)
    (translator,) = [e for e in stats["engines"] if e["role"] == "translator"]
    assert "best_of" in translator["identity"]
