"""Corpus formulas on sums are sacreBLEU's own, on random and on degenerate corpora."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from sdrrl_nemo.study.aggregate import KINDS, bleu, chrf, ratio, statistics, value

WORDS = ("a casa azul fica perto do rio e o gato dorme na janela", "the blue house is near")


def corpora() -> list[tuple[list[str], list[str]]]:
    rng = random.Random(3)

    def sentence(least: int = 0) -> str:
        return " ".join(rng.choices(" ".join(WORDS).split(), k=rng.randint(least, 12)))

    out = []
    for n in (1, 2, 5, 30):
        for _ in range(60):
            references = [sentence(1) for _ in range(n)]
            guesses = [r if rng.random() < 0.3 else sentence() for r in references]
            out.append((guesses, references))
    out += [([""], ["a casa"]), (["x"], ["y"]), (["casa"], ["casa"]), (["a b c d e"], ["e d c b a"])]
    return out


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("bleu", BLEU()), ("chrf", CHRF()), ("chrf", CHRF(word_order=2))],
    ids=["BLEU", "chrF", "chrF++"],
)
def test_corpus_scores_are_those_of_sacrebleu(kind, metric):
    for guesses, references in corpora():
        items = np.asarray(statistics(metric, guesses, references))
        assert value(kind, items) == pytest.approx(metric.corpus_score(guesses, [references]).score, abs=1e-9)


def test_resampled_corpora_are_scored_as_if_written_out():
    guesses, references = corpora()[-5]
    metric = BLEU()
    items = np.asarray(statistics(metric, guesses, references))
    counts = np.random.default_rng(1).multinomial(len(items), [1 / len(items)] * len(items), size=20)
    for drawn, score in zip(counts, bleu(counts @ items), strict=True):
        chosen = [i for i, n in enumerate(drawn) for _ in range(n)]
        whole = metric.corpus_score([guesses[i] for i in chosen], [[references[i] for i in chosen]]).score
        assert score == pytest.approx(whole, abs=1e-9)


def test_a_weighted_mean_without_weight_has_no_value():
    assert ratio(np.array([6.0, 4.0])) == 1.5
    assert math.isnan(ratio(np.array([0.0, 0.0])))


def test_all_kinds_take_any_leading_shape():
    assert bleu(np.zeros((3, 4, 10))).shape == chrf(np.zeros((3, 4, 18))).shape == (3, 4)
    assert set(KINDS) == {"mean", "bleu", "chrf"}
