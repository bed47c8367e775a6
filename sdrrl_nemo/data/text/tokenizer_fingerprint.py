"""What a tokenizer is, apart from how a version of transformers or tokenizers happens to write it down.

The same tokenizer is written differently: 4.57 and 5 differ in the post-processor of nearly all, and 5 builds those of
some families anew from vocabulary and merges, with another normaliser and pre-tokenizer of the same effect. So what is
stated alike everywhere is taken as it is, and the rest by the ids it gives for a fixed set of texts.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
WORDS_OF_VOCABULARY = 1500
"""Entries of the vocabulary that are texts to try, evenly over the ids."""
SPACES = ("\u2581", "\u0120")
"""Marks of a space in SentencePiece's and in byte-level vocabularies."""

AROUND = ("", "a", "Good morning, 2024!", " bom dia\n")
"""Texts for what is put around a text: beginning and end tokens."""

_TEXTS = (
    *AROUND,
    "  two  spaces   three\tand\ttabs\u00a0no-break\u3000wide \n\n lines\r\nend \n",
    "it'sx it'Sx we'LLy I'VEz IT'SELF rock'n'roll O'REILLY's",
    "It's we're they'LL I'd CAN'T don\u2019t l'eau d\u2019\u00c9t\u00e9",
    "CamelCase UPPER lower snake_case kebab-case under__score a.b.c e-mail@example.org https://x.org/?q=1&r=%20",
    "1 12 123 1234 12345 1,234.56 3.14e-10 2024-11-28 0x1F \u0661\u0662\u0663 \u0967\u0968 \uff11\uff12 "
    "\u00b2\u00bd\u2167",
    "!?.,;:()[]{}<>\"'`~@#$%^&*-+=|\\/ ... --- *** === ?!?! \u00bfQu\u00e9? \u00abcit\u00e9\u00bb "
    "\u201cq\u201d \u2014 \u2026 \u20ac\u00a3\u00a5",
    "caf\u00e9 cafe\u0301 na\u00efve nai\u0308ve \u00c5 \u212b A\u030a \ufb01 \ufb03 \u017f \u1e9e \u00df "
    "\u0130 \u0131 \u01c6 \u2126 \u00b5",
    "\uac00\ub098\ub2e4 \u1100\u1161\u1102\u1161 \uff76\uff9e \u30ac \u30ab\u3099 \u732b\u304c\u597d\u304d "
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \ufa0e \u8c48",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u1781\u17d2\u1798\u17c2\u179a \u0e81\u0eb2 "
    "\u1019\u103c\u1014\u103a \u0939\u093f\u0928\u094d\u0926\u0940 "
    "\u09ac\u09be\u0982 \u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0627\u0644\u0639\u0631\u0628\u064a\u0651\u0629 "
    "\u05e2\u05b4\u05d1\u05e8\u05d9\u05ea",
    "\U0001f600\U0001f1e7\U0001f1f7 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd "
    "\U0001d400 \U00020000 a\u200bb\u200cc\u200dd\ufeffe\u00adf",
    "\x00\x01\x07\x0b\x0c\x1b\x7f\x80\x85\x9f \u2028\u2029 \ufffd \ue000",
    "def f(x):\n    return {'a': [1, 2]}  # \u00e9\n\n\n\tif x != 0 && y >= 1:\n        pass\n",
)


def stated(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Vocabulary, merges in order, added tokens with their flags, beginning and end token, and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model: Mapping[str, Any] = json.loads(backend.to_str())["model"] if backend is not None else {}
    merges = [pair.split(" ") if isinstance(pair, str) else list(pair) for pair in model.get("merges") or []]
    scores = model.get("vocab") if model.get("type") == "Unigram" else None
    added = {
        str(number): [str(token), *(bool(getattr(token, flag)) for flag in FLAGS)]
        for number, token in tokenizer.added_tokens_decoder.items()
    }
    return {
        "format": 2,
        "vocab": tokenizer.get_vocab(),
        "merges": merges,
        "scores": scores,
        "dropout": model.get("dropout") or 0.0,
        "added_tokens": added,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "chat_template": tokenizer.chat_template,
    }


def cuts(tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Where the normaliser and the pre-tokenizer cut texts, though the merges at hand may not reach across a cut."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return []
    normal, cut = backend.normalizer, backend.pre_tokenizer
    texts = [text if normal is None else normal.normalize_str(text) for text in (*_TEXTS, *_characters())]
    return [[text] if cut is None else [part for part, _ in cut.pre_tokenize_str(text)] for text in texts]


def probes(vocabulary: Mapping[str, int]) -> list[str]:
    """Texts whose ids tell tokenizers apart: scripts, spaces, digits, marks, and words of the vocabulary itself."""
    return [*_TEXTS, *_characters(), *_of_vocabulary(vocabulary)]


@cache
def _characters() -> tuple[str, ...]:
    """Characters of Unicode 3.2, whose table every Python has, each in a word, alone and beside digits; all letters of
    ASCII with all combining marks; what normalisation takes apart, taken apart."""
    table = unicodedata.ucd_3_2_0
    # every character of the alphabets, every 61st of the ideographs and syllables
    points = [*range(0x21, 0x3400), *range(0x3400, 0xD800, 61), *range(0xF900, 0x10000)]
    known = [chr(p) for p in points if table.category(chr(p)) not in ("Cn", "Co", "Cs")]
    apart = [d for c in known if (d := table.normalize("NFD", c)) != c]
    marked = [a + chr(m) for a in map(chr, (*range(0x41, 0x5B), *range(0x61, 0x7B))) for m in range(0x300, 0x370)]
    lines = [f"x{c}y {c} 1{c}2" for c in (*known, *apart)]
    return tuple(" ".join(part) for part in (*_pieces(lines), *_pieces(marked)))


def _of_vocabulary(vocabulary: Mapping[str, int]) -> Iterator[str]:
    """Tokens as text, with a space for its mark: alone, and two and two without a space between them."""
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    texts = [_spaced(token) for token in ordered[:: max(1, len(ordered) // WORDS_OF_VOCABULARY)]]
    yield from texts
    yield from (a + b for a, b in zip(texts, reversed(texts), strict=True))


def _spaced(token: str) -> str:
    for mark in SPACES:
        token = token.replace(mark, " ")
    return token


def _pieces(items: list[str], size: int = 200) -> Iterator[list[str]]:
    return (items[i : i + size] for i in range(0, len(items), size))
