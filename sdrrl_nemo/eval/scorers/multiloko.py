"""MultiLoKo (Hupkes and Bogoychev 2025): short answers to questions of local interest; exact match, F1 and chrF.

Equal to ``eval.py`` of facebookresearch/multiloko, commit 4de606f: best over the accepted answers, after lower case,
without punctuation (also that of Chinese, Japanese and European typography) and without English articles. Words stand
between spaces in every language, so F1 of Japanese, Thai and Khmer is exact match of phrases.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require

NAMES = {
    "ces": "czech", "eng": "english", "fra": "french", "ind": "indonesian", "jpn": "japanese", "khm": "khmer",
    "kor": "korean", "pol": "polish", "por": "portuguese", "spa": "spanish", "tha": "thai", "vie": "vietnamese",
}  # fmt: skip
"""Languages of the table that MultiLoKo has, as its folders are named."""
_PUNCTUATION = frozenset(
    string.punctuation + "„“«»¡¿《》！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃"
    "「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛”‟…‧﹏"
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class ItemScore:
    """``em`` and ``f1`` from 0 to 1, ``chrf`` (sacreBLEU's chrF2 of the sentence) from 0 to 100."""

    em: float
    f1: float
    chrf: float


def normalise(text: str) -> str:
    """Lower case without punctuation and English articles, single spaces."""
    kept = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def score_item(prediction: str, targets: Sequence[str]) -> ItemScore:
    """Best of each measure over the accepted answers; SdrrlError without any."""
    if not targets:
        raise SdrrlError("MultiLoKo: a question has no accepted answer in 'targets'")
    said, accepted = normalise(prediction), [normalise(t) for t in targets]
    return ItemScore(
        max(float(said == t) for t in accepted),
        max(_f1(said.split(), t.split()) for t in accepted),
        float(_chrf().sentence_score(said, accepted).score),
    )


def _f1(said: list[str], accepted: list[str]) -> float:
    same = sum((Counter(said) & Counter(accepted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(accepted)
    return 2 * precision * recall / (precision + recall)


@cache
def _chrf() -> Any:
    return require("sacrebleu.metrics", "sacrebleu", "eval").CHRF()
