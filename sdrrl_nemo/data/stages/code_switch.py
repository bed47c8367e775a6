"""Code-switching of questions by a bilingual dictionary (paper, section 3.2.3, Eq. 5).

The paper applies it "only to the question components x_i of D_LL, D_TL, D_LT and D_TT" and then trains on those
sets, so the switched question replaces the plain one in all four subsets; answers stay as they are, and D_mt and D_comp
are left alone. Each token that the dictionary knows is replaced with probability p, independently, by one of its
translations, each as likely as the others: random aligned substitution (RAS) of mRASP (Lin et al. 2020), whose
`replace_word.py` draws for known tokens alone (`token in dictionary and random.random() < replace_prob`), takes
`random.choice` of the translations and has p = 0.15 as its default.

mRASP looks up whitespace tokens of lower-cased text. Here a token is a word of `sdrrl_nemo.data.text.words`:

- In scripts without spaces the longest run of at most four neighbouring words that the dictionary has is one token.
- A Korean word is looked up as it stands, then without its particles, longest stem first; the particles stay and are
  not adapted to the sound before them: 도서관에서 -> library에서.
- Letter case, typographic apostrophes and Unicode composition do not count in the lookup; case is put back afterwards.

A foreign word put into Thai or Khmer gets a space on each side where letters touch, as is usual there; Japanese sets it
without spaces, and two words of spaced scripts never run together.
"""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sdrrl_nemo.common.seeding import named_random
from sdrrl_nemo.data.config import Pair
from sdrrl_nemo.data.engines.base import Dictionary, fingerprint_of
from sdrrl_nemo.data.execution.stage_runner import Outcome, Stage
from sdrrl_nemo.data.rows import SampleRow
from sdrrl_nemo.data.text import segmentation, words
from sdrrl_nemo.data.text.words import Span, is_unspaced, korean_stems, tokenize

Entries = Mapping[str, Sequence[str]]

MOST_JOINED = 4
"""Neighbouring words of an unspaced script that are looked up as one."""

_SPACED_LOANS = frozenset({"tha", "khm"})
"""Unspaced languages that set foreign words off by spaces."""


def lookup_key(word: str) -> str:
    """The form under which a word is looked up: lower case, composed (NFC), straight apostrophe."""
    return unicodedata.normalize("NFC", word).lower().replace("’", "'").replace("\u02bc", "'").replace("\u200b", "")


def match_case(model: str, word: str) -> str:
    """``word`` in the letter case of ``model``: ALL CAPS, Capitalised, or as the dictionary has it."""
    if len(model) > 1 and model.isupper():
        return word.upper()
    if model[:1].isupper():
        return word[:1].upper() + word[1:]
    return word


def invert(entries: Entries, code: str = "eng") -> dict[str, list[str]]:
    """Target word -> source words, of a source-to-target dictionary; ``code`` is the target language.

    Translations of several words are left out, since a lookup never asks for them; in unspaced scripts runs of at
    most `MOST_JOINED` words stay.
    """
    inverse: dict[str, list[str]] = {}
    for word in sorted(entries):
        for translation in entries[word]:
            known = inverse.setdefault(lookup_key(translation), [])
            if word not in known:
                known.append(word)
    return {word: inverse[word] for word in sorted(inverse) if _is_token(word, code)}


def first_pairs(entries: Entries, most: int) -> dict[str, Sequence[str]]:
    """The first ``most`` pairs of a word and one of its translations, in the dictionary's order."""
    kept: dict[str, Sequence[str]] = {}
    for word, translations in entries.items():
        if most <= 0:
            break
        kept[word] = translations[:most]
        most -= len(kept[word])
    return kept


def _is_token(word: str, code: str) -> bool:
    spans = tokenize(word, code)
    if not spans or spans[0][0] != 0 or spans[-1][1] != len(word):
        return False
    return len(spans) == 1 or (len(spans) <= MOST_JOINED and _joined(word, spans))


def _joined(text: str, spans: Sequence[Span]) -> bool:
    """True when the words touch each other and are all of unspaced scripts."""
    touching = all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    return touching and all(is_unspaced(text[start]) for start, _ in spans)


@dataclass(frozen=True)
class Token:
    """A part of the text that the dictionary has; ``particle`` says that a Korean particle follows it."""

    start: int
    end: int
    translations: Sequence[str]
    particle: bool = False


def known_tokens(text: str, entries: Entries, code: str, protected: Sequence[Span] = ()) -> Iterator[Token]:
    """The tokens of ``text`` (in language ``code``) that the dictionary has, outside ``protected`` spans, in order."""

    def find(start: int, end: int) -> Sequence[str]:
        if any(start < b and a < end for a, b in protected):
            return ()
        return entries.get(lookup_key(text[start:end])) or entries.get(text[start:end]) or ()

    spans = tokenize(text, code)
    position = 0
    while position < len(spans):
        token, used = _longest(text, spans[position : position + MOST_JOINED], find)
        if token is None and code == "kor":
            token = _korean(text, spans[position], find)
        if token is not None:
            yield token
        position += used


def _longest(text: str, spans: Sequence[Span], find: Callable[[int, int], Sequence[str]]) -> tuple[Token | None, int]:
    """Longest run from the first span on that the dictionary has, and how many spans it takes."""
    for n in range(len(spans), 0, -1):
        if n > 1 and not _joined(text, spans[:n]):
            continue
        start, end = spans[0][0], spans[n - 1][1]
        if translations := find(start, end):
            return Token(start, end, translations), n
    return None, 1


def _korean(text: str, span: Span, find: Callable[[int, int], Sequence[str]]) -> Token | None:
    start, end = span
    for stem in korean_stems(text[start:end]):
        if translations := find(start, start + stem):
            return Token(start, start + stem, translations, particle=True)
    return None


class Switched(NamedTuple):
    """A text after code-switching: how many of its tokens the dictionary knows, and how many of these were replaced."""

    text: str
    replaced: int
    found: int


def code_switch(
    text: str,
    entries: Entries,
    probability: float,
    rng: random.Random,
    *,
    code: str = "eng",
    protected: Sequence[Span] = (),
) -> Switched:
    """Replace each token that the dictionary has by one of its translations with ``probability`` p (Eq. 5).

    ``code`` is the text's language. ``protected`` spans (code, URLs, formulas, template lines; see `protected_parts`)
    are never touched, nor counted as found. The random number of a token is drawn only where the dictionary has it.
    """
    pieces: list[str] = []
    position = found = replaced = 0
    for token in known_tokens(text, entries, code, protected):
        found += 1
        if rng.random() >= probability:  # Eq. 5: x stays x with probability 1 - p
            continue
        replaced += 1
        # Every translation is as likely as the others, as in mRASP: Eq. 5 writes Dict(x) as if there were one.
        chosen = token.translations[rng.randrange(len(token.translations))]
        word = match_case(text[token.start : token.end], chosen)
        pieces.append(text[position : token.start])
        pieces += [_gap("".join(pieces[-3:])[-1:], word[:1], code), word]
        # A Korean particle stays where it is, glued to the foreign word as to the stem before.
        after = "" if token.particle else text[token.end : token.end + 1]
        pieces.append(_gap(word[-1:], after, code))
        position = token.end
    return Switched("".join([*pieces, text[position:]]), replaced, found)


def _gap(left: str, right: str, code: str) -> str:
    """The space that belongs between two letters that were not neighbours before, or nothing."""
    if not (_is_letter(left) and _is_letter(right)):
        return ""
    unspaced = is_unspaced(left), is_unspaced(right)
    if all(unspaced):
        return ""
    return " " if not any(unspaced) or code in _SPACED_LOANS else ""


def _is_letter(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] in "LMN"


def protected_parts(text: str) -> list[Span]:
    """Spans that code-switching leaves alone: those that translation protects, and lines of the templates."""
    from sdrrl_nemo.data.text.templates import template_spans

    return sorted({*segmentation.protected_spans(text), *template_spans(text)})


class SwitchDictionary:
    """Dictionary per question language for one pair; read when first asked for, and not carried to other processes.

    ``target_questions`` and ``most_pairs``: see CodeSwitchConfig.
    """

    def __init__(
        self, engine: Dictionary, options: Any, pair: Pair, target_questions: str, most_pairs: int | None = None
    ) -> None:
        self.engine, self.options, self.pair, self.target_questions = engine, options, pair, target_questions
        self.most_pairs = most_pairs
        self._entries: dict[str, Entries] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A worker reads the dictionary by itself: pickled, the entries would travel with every task.
        return {**self.__dict__, "_entries": None}

    @property
    def identity(self) -> Any:
        """What names the entries in a stage's fingerprint."""
        most = [] if self.most_pairs is None else [self.most_pairs]
        ways = [self.pair, self.pair[::-1]] if self.target_questions == "dictionary" else [self.pair]
        read = [fingerprint_of(self.engine, *way) for way in ways]
        return [*read, self.options, self.target_questions, *self.pair, *most]

    def entries(self, code: str) -> Entries:
        """The dictionary for questions in the language ``code``; empty where they are left alone."""
        if self._entries is None:
            source, target = self.pair
            self._entries = {source: self._read(source, target)}
            # TL and TT ask in the target language, so Eq. 5 needs a dictionary from there too: inverted, or its own.
            if self.target_questions == "inverse":
                self._entries[target] = invert(self._entries[source], target)
            elif self.target_questions == "dictionary":
                self._entries[target] = self._read(target, source)
        return self._entries.get(code, {})

    def _read(self, source: str, target: str) -> Entries:
        entries = self.engine.entries(source, target)
        return entries if self.most_pairs is None else first_pairs(entries, self.most_pairs)


class CodeSwitch(Stage[SampleRow, SampleRow]):
    """Eq. 5 on the questions of LL, TL, LT and TT, each of a conversation; code, addresses and template lines in them
    are left alone.

    LL and LT share a question and draw independently, since the sample's combination is part of the seed's name; so is
    the pair, so that other pairs of the run change nothing.
    """

    name = "code-switch"

    def __init__(self, dictionary: SwitchDictionary, probability: float, seed: int, shard_size: int) -> None:
        self.dictionary, self.probability = dictionary, probability
        self.seed, self.shard_size = seed, shard_size

    def settings(self) -> Any:
        chosen = {"dictionary": self.dictionary.identity, "probability": self.probability, "seed": self.seed}
        return {**chosen, "words": words.identity(), "protected": segmentation.REVISION}

    def process(self, rows: list[SampleRow]) -> Outcome[SampleRow]:
        out: list[SampleRow] = []
        notes: Counter[str] = Counter()
        for row in rows:
            about = (row["pair"], row["combination"], row["source_key"], row["origin"])
            last = self._switch(row["question"], row["question_language"], about, notes)
            # The answers stay as they are: the paper switches "only the question components".
            new: SampleRow = {
                **row,
                "question": last.text,
                "question_plain": row["question"],
                "switched": last.replaced,
            }
            if "earlier" in row:
                plain = [e["question"] for e in row["earlier"]]
                done = [self._switch(q, row["question_language"], (*about, n), notes) for n, q in enumerate(plain)]
                pairs = zip(done, row["earlier"], strict=True)
                new["earlier"] = [{"question": s.text, "answer": e["answer"]} for s, e in pairs]
                new["earlier_plain"], new["switched"] = plain, last.replaced + sum(s.replaced for s in done)
            out.append(new)
        return Outcome(out, len(rows), len(rows), notes=notes)

    def _switch(self, text: str, code: str, about: tuple[Any, ...], notes: Counter[str]) -> Switched:
        # A generator of its own for each question: which words are replaced does not depend on those before it.
        rng = named_random(self.seed, "code-switch", *about)
        entries = self.dictionary.entries(code)
        switched = code_switch(text, entries, self.probability, rng, code=code, protected=protected_parts(text))
        notes["tokens in the dictionary"] += switched.found
        notes["tokens replaced"] += switched.replaced
        return switched
