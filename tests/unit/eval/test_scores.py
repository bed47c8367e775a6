"""Off-target rate, alignment, translation scores, intervals and verdicts on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.base import LanguageIdentifier
from sdrrl_nemo.eval.compare import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    Measure,
    Rate,
    compare_translations,
    goal_kept,
    goal_lower,
    paired_interval,
)
from sdrrl_nemo.eval.scorers.alignment import alignment, tsne
from sdrrl_nemo.eval.scorers.off_target import letters, off_target
from sdrrl_nemo.eval.store import pack_array, unpack_array


class ByFirstLetter(LanguageIdentifier):
    """p... is Portuguese, e... English, anything else unknown."""

    def identify(self, texts):
        return [({"p": "por", "e": "eng"}.get(t[0]), 1.0) for t in texts]


def test_off_target_counts_unknown_languages_and_leaves_short_texts_out():
    texts = ["pppppp", "eeeeee", "zzzzzz", "p 123456", "pppppppp", ""]
    found = off_target(ByFirstLetter(), texts, "por", min_letters=5)
    assert found.languages == ["por", "eng", "other", None, "por", None]
    assert (found.judged, found.too_short, found.off, found.rate) == (4, 2, 2, 0.5)
    assert found.counts() == {"por": 2, "eng": 1, "other": 1}


def test_off_target_without_a_judged_text_has_no_rate():
    assert off_target(ByFirstLetter(), ["", "12"], "por", 5).rate is None


def test_letters_of_any_script():
    assert letters("Olá, 12 日本!") == 5


def test_alignment_by_hand():
    source = np.array([[1, 0], [0, 1]], np.float32)
    target = np.array([[2, 0], [3, 4]], np.float32)  # cosines with the source: 1 and 0.6, 0 and 0.8
    found = alignment(source, target)
    assert found.precision_at_1 == 1.0
    assert found.parallel == pytest.approx(0.9)
    assert found.non_parallel == pytest.approx(0.3)
    assert np.mean(found.margins) == pytest.approx(found.margin)
    swapped = alignment(source, target[::-1])
    assert swapped.precision_at_1 == 0.0


def test_tsne_is_seeded_and_checks_perplexity():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=(8, 5)).astype(np.float32)
    first, again = tsne(a, b, 4, 7), tsne(a, b, 4, 7)
    assert np.array_equal(first[0], again[0])
    assert first[1].shape == (8, 2)
    with pytest.raises(SdrrlError, match="perplexity is 30"):
        tsne(a, b, 30, 7)


def test_perfect_translation_scores_100_and_wins():
    references = [f"A casa número {i} fica perto do rio e da ponte velha." for i in range(12)]
    bad = ["The house is near the river." for _ in references]
    scores = {s.metric: s for s in compare_translations(bad, references, references, "13a", 200)}
    assert scores["BLEU"].trained == pytest.approx(100)
    assert scores["chrF"].trained == pytest.approx(100)
    assert scores["chrF"].base < 40
    assert scores["BLEU"].p_value < 0.05
    assert "tok:13a" in scores["BLEU"].signature
    same = compare_translations(bad, bad, references, "13a", 200)
    assert [s.p_value for s in same] == [1.0, 1.0]


def test_unknown_bleu_tokeniser_is_one_sentence():
    with pytest.raises(SdrrlError, match="bleu_tokenize: sacreBLEU cannot use the tokeniser 'nonsense'"):
        compare_translations(["a"], ["a"], ["a"], "nonsense", 100)


def measure(base, trained, interval=None, p_value=None, better="lower"):
    return Measure("id", "title", "nats/token", better, base, trained, interval, p_value)


@pytest.mark.parametrize(
    ("m", "verdict"),
    [
        (measure(2.0, 1.5, (-0.6, -0.4)), BETTER),
        (measure(2.0, 2.5, (0.4, 0.6)), WORSE),
        (measure(2.0, 1.9, (-0.3, 0.1)), SAME),
        (measure(10.0, 20.0, p_value=0.01, better="higher"), BETTER),
        (measure(10.0, 5.0, p_value=0.01, better="higher"), WORSE),
        (measure(10.0, 20.0, p_value=0.2, better="higher"), SAME),
        (measure(None, 1.0), UNKNOWN),
    ],
)
def test_verdicts(m, verdict):
    assert m.verdict == verdict
    assert Measure.from_dict(m.as_dict()) == m


def test_interval_is_paired_seeded_and_weighted():
    easy_and_hard = np.linspace(0, 10, 30)
    base, trained = Rate.mean(easy_and_hard.tolist()), Rate.mean((easy_and_hard - 0.1).tolist())
    low, high = paired_interval(base, trained, 500, 1, "x")
    assert low == pytest.approx(-0.1)  # the spread between rows cancels
    assert high == pytest.approx(-0.1)
    assert paired_interval(base, trained, 500, 1, "x") == (low, high)
    assert paired_interval(Rate([0.0], [0.0]), Rate([1.0], [1.0]), 500, 1, "x") is None
    weighted = paired_interval(Rate([1, 0], [1, 0]), Rate([0, 1], [1, 1]), 500, 1, "y")
    assert -1 <= weighted[0] <= weighted[1] <= 0


def test_goals():
    assert goal_lower("t", measure(0.5, 0.25, (-0.4, -0.1)), percent=True).met is True
    assert goal_lower("t", measure(0.5, 0.5, (0, 0)), percent=True).met is False
    assert goal_lower("t", measure(0.0, 0.0, (0, 0)), percent=True).met is True
    assert goal_lower("t", measure(None, 0.0), percent=True).met is None
    assert "chance" in goal_lower("t", measure(0.5, 0.4, (-0.3, 0.1)), percent=True).sentence
    assert goal_kept("t", measure(2.0, 2.039), 0.02).met is True
    assert goal_kept("t", measure(2.0, 2.041), 0.02).met is False


def test_array_round_trip():
    a = np.array([[1.5, -2], [3e-9, 4]], np.float32)
    assert np.array_equal(unpack_array(pack_array(a)), a)
