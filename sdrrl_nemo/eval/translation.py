"""Translation quality on held-out pairs: sacreBLEU and chrF, with a paired bootstrap between the two models."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from sdrrl_nemo.common.errors import SdrrlError

logging.getLogger("sacrebleu").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Score:
    """One metric of one direction for both models; ``p_value`` of the difference, paired bootstrap resampling."""

    metric: str
    base: float
    trained: float
    p_value: float
    signature: str


def make_metrics(tokenize: str) -> dict[str, Any]:
    """BLEU and chrF2; SdrrlError when sacreBLEU has no such tokeniser or lacks a package for it."""
    try:
        return {"BLEU": BLEU(tokenize=tokenize), "chrF": CHRF()}
    except (AssertionError, ValueError, KeyError, ImportError, RuntimeError) as e:
        raise SdrrlError(f"bleu_tokenize: sacreBLEU cannot use '{tokenize}' ({' '.join(str(e).split())})") from None


def compare_translations(
    base: Sequence[str], trained: Sequence[str], references: Sequence[str], tokenize: str, samples: int
) -> list[Score]:
    """BLEU and chrF of both models' translations (same order as ``references``), 0 to 100, higher is better."""
    metrics = make_metrics(tokenize)
    plain = {name: m.corpus_score(list(base), [list(references)]) for name, m in metrics.items()}
    signatures = {name: str(m.get_signature()) for name, m in metrics.items()}
    test = PairedTest(
        [("base", list(base)), ("trained", list(trained))],
        metrics,
        [list(references)],
        test_type="bs",
        n_samples=samples,
    )
    _, found = test()
    table: dict[str, Any] = dict(found)
    out = []
    for name in metrics:
        first, second = table[plain[name].name]
        # For equal outputs sacreBLEU's formula gives 1/(samples+1); there is nothing to tell apart, so p is 1.
        p_value = 1.0 if list(base) == list(trained) else float(second.p_value)
        out.append(Score(name, float(first.score), float(second.score), p_value, signatures[name]))
    return out
