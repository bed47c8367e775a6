"""New tokens for a byte-pair tokenizer: its own merges first, then further ones, so old texts only get shorter.

A merge (a, b) makes the token ab. New merges rank after all old ones, so a text is cut as before and new merges then
join neighbouring pieces; nothing that was one token changes. ``add_tokens`` of transformers is not used: it cuts such
tokens out of the raw text, inside other words too and without the space before, and a byte-level decoder garbles
their letters beyond ASCII ("informação" comes back as "informa??o").
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json

SPACE = "\u2581"
"""SentencePiece's mark of a space."""
_BYTE = re.compile(r"^<0x[0-9A-F]{2}>$")
_JOINERS = "\u200c\u200d"
Pair = tuple[str, str]


class GrowingBpe:
    """The tokenizer.json of a folder, to which tokens are added.

    Words and pieces are strings in the model's own alphabet ("Ġ" or "▁" for a space, one letter a byte where the
    tokenizer is byte-level).
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "tokenizer.json"
        self.document: dict[str, Any] = read_json(self.path)
        model = self.document.get("model", {})
        kind = model.get("type")
        if kind != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise SdrrlError(f"{self.path}: only plain byte-pair tokenizers can be expanded, this one is '{kind}'")
        self.tokenizer = Tokenizer.from_file(str(self.path))
        self.vocab: dict[str, int] = model["vocab"]
        self.special = {token["content"]: token["id"] for token in self.document.get("added_tokens", [])}
        for token, number in self.special.items():  # one outside the model would get a new id on loading
            self.vocab.setdefault(token, number)
        self.first_id = max(self.vocab.values()) + 1
        self.new: list[str] = []
        """New tokens, in the order of their ids from ``first_id`` on."""
        self._rank: dict[Pair, int] = {}
        self._splits_at_space = SPACE in str([self.document.get("normalizer"), self.document.get("pre_tokenizer")])

    def words(self, text: str) -> Iterator[tuple[str, str]]:
        """(word in the model's alphabet, its letters): the parts of a text that no merge reaches across."""
        t = self.tokenizer
        normal = t.normalizer.normalize_str(text) if t.normalizer else text
        parts = t.pre_tokenizer.pre_tokenize_str(normal) if t.pre_tokenizer else [(normal, (0, len(normal)))]
        for word, (a, b) in parts:
            if not self._splits_at_space:
                yield word, normal[a:b].strip()
            else:
                yield from ((part, part.strip(SPACE)) for part in re.findall(f"{SPACE}*[^{SPACE}]+", word))

    def old_pieces(self, word: str) -> list[str]:
        """Pieces of a word before anything was added."""
        return [token.value for token in self.tokenizer.model.tokenize(word)]

    def pieces(self, word: str) -> list[str]:
        """Pieces of a word with the merges so far."""
        pieces = self.old_pieces(word)
        while ranks := [(self._rank[p], i) for i, p in enumerate(pairwise(pieces)) if p in self._rank]:
            _, i = min(ranks)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        return pieces

    def mergeable(self, pair: Pair) -> bool:
        """Whether a pair can become a token: a new one, of known letters, within one word."""
        a, b = pair
        unknown = any(_BYTE.match(x) or x in self.special for x in pair)
        return a + b not in self.vocab and not b.startswith(SPACE) and not unknown

    def merge(self, pair: Pair) -> None:
        """Add the token of a pair, ranked last."""
        merges = self.document["model"]["merges"]
        merges.append(" ".join(pair) if merges and isinstance(merges[0], str) else list(pair))
        self._rank[pair] = len(self._rank)
        token = "".join(pair)
        self.vocab[token] = self.first_id + len(self.new)
        self.new.append(token)

    def add_word(self, text: str, where: str, *, bare: bool) -> None:
        """Make a word one token, with the space before it (``bare``: without); its beginnings become tokens too.

        SdrrlError when it is one token already, is more than one word, or has letters the tokenizer does not know.
        """
        found = [w for w, _ in self.words(text if bare else f"x {text}")]
        found = [w.removeprefix(SPACE).removeprefix("Ġ") for w in found] if bare else found[1:]
        if len(found) != 1 or text != text.strip() or not text:
            raise SdrrlError(f"{where}: '{text}' is not one word to the tokenizer of {self.path.parent}; remove it")
        pieces = self.pieces(found[0])
        if len(pieces) == 1:
            raise SdrrlError(f"{where}: '{text}' is one token already; remove it")
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if not self.mergeable(pair):
                raise SdrrlError(f"{where}: '{text}' cannot be joined from the tokenizer's pieces {pieces}; remove it")
            self.merge(pair)
            pieces[:2] = ["".join(pair)]

    def count_words(self, texts: Iterable[str]) -> Counter[str]:
        """How often each word of letters occurs."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(word for word, letters in self.words(text) if letters and all(map(_is_letter, letters)))
        return counts

    def learn(self, counts: Counter[str], number: int, min_count: int) -> int:
        """Continue byte-pair training on words: merge the most frequent pair, ``number`` times; returns how often.

        Ends early when no pair occurs ``min_count`` times. Equal counts: the first pair in the order of its letters.
        """
        table = _Pairs([(self.pieces(word), n) for word, n in sorted(counts.items())])
        done = 0
        while done < number and (pair := table.most_frequent(min_count)):
            if self.mergeable(pair):
                self.merge(pair)
                done += 1
                table.join(pair)
            else:
                table.forbid(pair)
        return done


def _is_letter(c: str) -> bool:
    return unicodedata.category(c)[0] in "LM" or c in _JOINERS


class _Pairs:
    """Counts of neighbouring pieces over weighted words, kept while pairs are joined."""

    def __init__(self, words: list[tuple[list[str], int]]) -> None:
        self.words = words
        self.counts: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        self.forbidden: set[Pair] = set()
        for i in range(len(words)):
            self._add(i, 1)
        self.heap = [(-n, pair) for pair, n in self.counts.items()]
        heapq.heapify(self.heap)

    def _add(self, i: int, sign: int) -> set[Pair]:
        pieces, n = self.words[i]
        for pair in pairwise(pieces):
            self.counts[pair] += sign * n
            if sign > 0:
                self.places[pair].add(i)
        return set(pairwise(pieces))

    def most_frequent(self, min_count: int) -> Pair | None:
        """The pair to join next; None when none is frequent enough."""
        while self.heap:
            n, pair = self.heap[0]
            now = self.counts[pair]
            if pair in self.forbidden or now < min_count:
                heapq.heappop(self.heap)
            elif now != -n:
                heapq.heapreplace(self.heap, (-now, pair))
            else:
                return pair
        return None

    def forbid(self, pair: Pair) -> None:
        """Never return this pair again."""
        self.forbidden.add(pair)

    def join(self, pair: Pair) -> None:
        """Replace the pair by one piece in every word."""
        touched: set[Pair] = set()
        for i in self.places.pop(pair):
            self._add(i, -1)
            pieces = self.words[i][0]
            at = 0
            while at + 1 < len(pieces):
                if (pieces[at], pieces[at + 1]) == pair:
                    pieces[at : at + 2] = ["".join(pair)]
                at += 1
            touched |= self._add(i, 1)
        for p in touched:  # counts only fall for pairs that were there, so these are the ones that may have risen
            heapq.heappush(self.heap, (-self.counts[p], p))
