"""FLORES (Goyal et al. 2022): sacreBLEU with FLORES-200's SentencePiece pieces (spBLEU), and chrF++.

Signature of the paper (appendix A): ``nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:...``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require

TOKENIZE = "flores200"
MODEL = "flores200sacrebleuspm"
URL = "https://tinyurl.com/flores200sacrebleuspm"
logging.getLogger("sacrebleu").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Bleu:
    """0 to 100, higher is better; the signatures say how they were computed."""

    bleu: float
    chrf: float
    signature: str
    chrf_signature: str


def model_path() -> Path:
    """Where sacreBLEU looks for FLORES-200's SentencePiece model: $SACREBLEU/models, by default ~/.sacrebleu/models.

    It reads the variable once, when it is imported.
    """
    return Path(require("sacrebleu.tokenizers.tokenizer_spm", "sacrebleu", "eval").SACREBLEU_DIR) / "models" / MODEL


def check(tokenize: str = TOKENIZE) -> None:
    """SdrrlError where scoring with this tokeniser would fail: say so before hours of generation."""
    _metrics(tokenize)


def _metrics(tokenize: str, sentence: bool = False) -> tuple[Any, Any]:
    """BLEU and chrF++ of sacreBLEU. SdrrlError where sacreBLEU would download a model."""
    path = model_path() if tokenize == TOKENIZE else None
    if path and not (path.is_file() and path.stat().st_size):
        raise SdrrlError(
            f"tok:flores200 needs FLORES-200's SentencePiece model; put {URL} at {path}, or set the "
            f"environment variable SACREBLEU to the folder that has models/{MODEL}"
        )
    return _make(tokenize, sentence, path)


@cache
def _make(tokenize: str, sentence: bool, path: Path | None) -> tuple[Any, Any]:
    """``path`` is only a key: another model is another metric."""
    metrics = require("sacrebleu.metrics", "sacrebleu", "eval")
    try:
        return metrics.BLEU(tokenize=tokenize, effective_order=sentence), metrics.CHRF(word_order=2)
    except (AssertionError, ValueError, KeyError, ImportError, RuntimeError, OSError) as e:
        raise SdrrlError(f"sacreBLEU cannot use the tokeniser '{tokenize}' ({' '.join(str(e).split())})") from None


def score_item(hypothesis: str, reference: str, tokenize: str = TOKENIZE) -> Bleu:
    """Sentence BLEU (orders that exist only, as sacreBLEU advises: ``eff:yes``) and chrF++ of one translation."""
    bleu, chrf = _metrics(tokenize, sentence=True)
    return Bleu(
        float(bleu.sentence_score(hypothesis, [reference]).score),
        float(chrf.sentence_score(hypothesis, [reference]).score),
        str(bleu.get_signature()),
        str(chrf.get_signature()),
    )


def corpus_score(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = TOKENIZE) -> Bleu:
    """BLEU and chrF++ of a corpus, one reference a sentence."""
    if len(hypotheses) != len(references):
        raise SdrrlError(f"BLEU: {len(hypotheses)} translations for {len(references)} references; score the same ones")
    if not hypotheses:
        raise SdrrlError("BLEU: nothing to score; give at least one translation")
    bleu, chrf = _metrics(tokenize)
    return Bleu(
        float(bleu.corpus_score(list(hypotheses), [list(references)]).score),
        float(chrf.corpus_score(list(hypotheses), [list(references)]).score),
        str(bleu.get_signature()),
        str(chrf.get_signature()),
    )
