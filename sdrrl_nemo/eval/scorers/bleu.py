"""BLEU and chrF++ of translations (FLORES, Goyal et al. 2022): sacreBLEU, with the tokeniser of the target language.

Every BLEU of this project comes from :func:`metric`. Signature of the paper (appendix A), with FLORES-200's
SentencePiece pieces (spBLEU): ``nrefs:1|case:mixed|eff:no|tok:flores200|smooth:exp|version:...``.
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
from sdrrl_nemo.data.text.languages import language

TOKENIZE = "flores200"
MODEL = "flores200sacrebleuspm"
URL = "https://tinyurl.com/flores200sacrebleuspm"
AUTO = "auto"
AT_SPACES = ("13a", "intl", "none")
"""Tokenisers that cut at spaces and punctuation only; of a sentence without spaces they make one word."""
OF_ONE_LANGUAGE = {"zh": ("zho", "cmn"), "ja-mecab": ("jpn",), "ko-mecab": ("kor",)}
CHINESE = ("zho", "cmn", "yue")
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
    return _place(TOKENIZE)


def tokeniser(lang: str, wanted: str = AUTO, spm: str = "") -> str:
    """sacreBLEU's name of the tokeniser for translations into ``lang`` (ISO 639-3).

    ``auto`` is ``flores200`` where its SentencePiece model is on disk (``spm``, or sacreBLEU's own place). Without it,
    languages whose words stand between spaces get ``13a``, Chinese ``zh``, and Japanese, Thai, Khmer and Korean
    ``char``: each character is a word, on every machine alike. A tokeniser of one language serves that language; the
    others get ``auto``. SdrrlError where ``wanted`` cuts at spaces and the language cannot be cut so: its BLEU would be
    near 0 whatever the translation.
    """
    if wanted != AUTO and lang in OF_ONE_LANGUAGE.get(wanted, (lang,)):
        if wanted in AT_SPACES and _uncut(lang):
            raise SdrrlError(
                f"bleu_tokenize: '{wanted}' cuts at spaces, which does not give the words of {_name(lang)}; use auto, "
                "flores200 or char"
            )
        return wanted
    if spm or _is_there(model_path()):
        return TOKENIZE
    if lang in CHINESE:
        return "zh"
    return "char" if _uncut(lang) else "13a"


def check(tokenize: str = TOKENIZE, spm: str = "") -> None:
    """SdrrlError where scoring with this tokeniser would fail: say so before hours of generation."""
    metric(tokenize, spm)


def metric(tokenize: str = TOKENIZE, spm: str = "", sentence: bool = False) -> Any:
    """sacreBLEU's ``BLEU``; ``spm`` is the file of FLORES-200's SentencePiece model if not in sacreBLEU's own place.

    SdrrlError where sacreBLEU would download a model. ``sentence``: orders that exist only (``eff:yes``), as sacreBLEU
    advises for sentences.
    """
    path = Path(spm) if spm and tokenize == TOKENIZE else _place(tokenize)
    if path and not _is_there(path):
        if spm:
            raise SdrrlError(f"bleu_spm: no SentencePiece model at {path}; put {URL} there")
        raise SdrrlError(
            f"tok:{tokenize} needs its SentencePiece model; put {_models()[tokenize]['url']} at {path}, or set the "
            f"environment variable SACREBLEU to the folder that has models/{path.name}"
            + (", or bleu_spm to the file" if tokenize == TOKENIZE else "")
        )
    return _make(tokenize, sentence, path)


def _uncut(lang: str) -> bool:
    """Korean's spaces part phrases with their particles, hardly ever equal in two translations."""
    return lang in CHINESE or lang == "kor" or not language(lang).spaces


def _name(lang: str) -> str:
    return "Chinese" if lang in CHINESE else language(lang).name


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _models() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = require("sacrebleu.tokenizers.tokenizer_spm", "sacrebleu", "eval").SPM_MODELS
    return found


def _place(tokenize: str) -> Any:
    """Where sacreBLEU has the SentencePiece model of a tokeniser; None for one without."""
    if tokenize not in _models():
        return None
    folder = require("sacrebleu.tokenizers.tokenizer_spm", "sacrebleu", "eval").SACREBLEU_DIR
    return Path(folder) / "models" / Path(_models()[tokenize]["url"]).name


@cache
def _make(tokenize: str, sentence: bool, path: Path | None) -> Any:
    """``path`` beside sacreBLEU's own makes another metric of the same signature."""
    metrics = require("sacrebleu.metrics", "sacrebleu", "eval")
    try:
        if tokenize != TOKENIZE:
            return metrics.BLEU(tokenize=tokenize, effective_order=sentence)
        made = metrics.BLEU(tokenize="none", effective_order=sentence)
        made.tokenizer = _Pieces(str(path))
        made.tokenizer_signature = TOKENIZE
        return made
    except (AssertionError, ValueError, KeyError, ImportError, RuntimeError, OSError) as e:
        said = " ".join(str(e).split())
        raise SdrrlError(f"bleu_tokenize: sacreBLEU cannot use the tokeniser '{tokenize}' ({said})") from None


class _Pieces:
    """A line's SentencePiece pieces with spaces between, as sacreBLEU's Flores200Tokenizer gives them."""

    def __init__(self, path: str) -> None:
        self._model = require("sentencepiece", "sentencepiece", "eval").SentencePieceProcessor(model_file=path)

    def __call__(self, line: str) -> str:
        return " ".join(self._model.encode(line, out_type=str))


@cache
def _chrf() -> Any:
    return require("sacrebleu.metrics", "sacrebleu", "eval").CHRF(word_order=2)


def score_item(hypothesis: str, reference: str, tokenize: str = TOKENIZE, spm: str = "") -> Bleu:
    """Sentence BLEU (orders that exist only, as sacreBLEU advises: ``eff:yes``) and chrF++ of one translation."""
    bleu, chrf = metric(tokenize, spm, sentence=True), _chrf()
    return Bleu(
        float(bleu.sentence_score(hypothesis, [reference]).score),
        float(chrf.sentence_score(hypothesis, [reference]).score),
        str(bleu.get_signature()),
        str(chrf.get_signature()),
    )


def corpus_score(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = TOKENIZE, spm: str = "") -> Bleu:
    """BLEU and chrF++ of a corpus, one reference a sentence."""
    if len(hypotheses) != len(references):
        raise SdrrlError(f"BLEU: {len(hypotheses)} translations for {len(references)} references; score the same ones")
    if not hypotheses:
        raise SdrrlError("BLEU: nothing to score; give at least one translation")
    bleu, chrf = metric(tokenize, spm), _chrf()
    return Bleu(
        float(bleu.corpus_score(list(hypotheses), [list(references)]).score),
        float(chrf.corpus_score(list(hypotheses), [list(references)]).score),
        str(bleu.get_signature()),
        str(chrf.get_signature()),
    )
