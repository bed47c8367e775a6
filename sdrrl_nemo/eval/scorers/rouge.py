"""XL-Sum (Hasan et al. 2021): ROUGE-1, ROUGE-2 and ROUGE-L F1 with XL-Sum's tokenisers and stemmers.

Package ``multilingual-rouge`` is the official ``multilingual_rouge_scoring`` of csebuetnlp/xl-sum, which
tests/data/scorers/rouge.json holds this to (commit afcd803c8d7c98f3be60e9a7ce57fcbc3e729e8c). Only the stemmers'
stop words come from here: the official code downloads NLTK's lists.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.optional import require
from sdrrl_nemo.compat.private import rouge_parts
from sdrrl_nemo.data.text.languages import language

TYPES = ("rouge1", "rouge2", "rougeL")
NAMES = {
    "eng": "english", "ces": "czech", "dan": "danish", "ukr": "ukrainian", "bul": "bulgarian", "fin": "finnish",
    "hun": "hungarian", "nob": "norwegian", "ind": "indonesian", "jpn": "japanese", "kor": "korean",
    "por": "portuguese", "slv": "slovenian", "vie": "vietnamese", "pol": "polish", "tha": "thai", "khm": "khmer",
    "fra": "french", "spa": "spanish",
}  # fmt: skip
"""XL-Sum's names; of these it has data in eng, fra, ind, jpn, kor, por, spa, tha, ukr and vie."""
STEMMED = frozenset({"eng", "dan", "fin", "fra", "hun", "nob", "por", "spa"})
"""Languages that Snowball stems; the official code leaves the others' words as they are."""
STOPWORDS = Path(__file__).with_name("stopwords.yaml")


@dataclass(frozen=True)
class Rouge:
    """F1 of one summary (0 to 1) or mean F1 of a corpus (0 to 100)."""

    rouge1: float
    rouge2: float
    rougeL: float


@cache
def _stopwords() -> dict[str, frozenset[str]]:
    lists: dict[str, str] = yaml.safe_load(STOPWORDS.read_text(encoding="utf-8"))
    return {lang: frozenset(words.split()) for lang, words in lists.items()}


def _stemmer(lang: str) -> Callable[[str], str]:
    """NLTK's Snowball stemmer that leaves stop words alone (its ``ignore_stopwords=True``)."""
    stem = require("nltk.stem", "nltk", "eval").SnowballStemmer(NAMES[lang]).stem
    stop = _stopwords()[lang]
    return lambda token: token.lower() if token.lower() in stop else stem(token)


@cache
def scorer(lang: str) -> Any:
    """The official scorer of one language; SdrrlError where a package that it needs is not installed."""
    language(lang)
    module = require("multilingual_rouge.rouge_scorer", "multilingual-rouge", "eval")
    stemmer = _stemmer(lang) if lang in STEMMED else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a language has no stemmer
            return module.RougeScorer(TYPES, lang=NAMES[lang], use_stemmer=True, callable_stemmer=stemmer)
    except (ImportError, RuntimeError) as e:
        what = "fugashi and unidic-lite" if lang == "jpn" else "pythainlp"
        raise SdrrlError(
            f"ROUGE in {language(lang).name} needs {what} ({' '.join(str(e).split())[:200]}); install them with: "
            "pip install 'sdrrl-nemo[eval]'"
        ) from None


def tokens(text: str, lang: str) -> list[str]:
    """The tokens that are compared: lower case, without punctuation, stemmed where the language has a stemmer."""
    module = require("multilingual_rouge.tokenization_wrapper", "multilingual-rouge", "eval")
    return list(module.tokenize(text, *rouge_parts(scorer(lang))))


def score_item(prediction: str, reference: str, lang: str) -> Rouge:
    """ROUGE F1 of one summary, 0 to 1; 0 where a text has no token."""
    found = scorer(lang).score(reference, prediction)
    return Rouge(*(float(found[name].fmeasure) for name in TYPES))


def corpus_score(predictions: Sequence[str], references: Sequence[str], lang: str) -> Rouge:
    """Means in percent. The official script prints the median of 1000 unseeded bootstrap means; this is the mean that
    they scatter about."""
    if len(predictions) != len(references):
        raise SdrrlError(f"ROUGE: {len(predictions)} predictions for {len(references)} references; score the same ones")
    if not predictions:
        return Rouge(math.nan, math.nan, math.nan)
    rows = [astuple(score_item(p, r, lang)) for p, r in zip(predictions, references, strict=True)]
    return Rouge(*(100.0 * math.fsum(column) / len(rows) for column in zip(*rows, strict=True)))
