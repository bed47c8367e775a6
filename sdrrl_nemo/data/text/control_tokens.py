"""Control tokens in the contents of a conversation, encoded as the plain text that they are there.

Hugging Face's tokenizers find control tokens (``<s>``, ``<|im_end|>``) anywhere in a text. In a rendered conversation
only those count that the template wrote. So before rendering each one inside a content is replaced by a character of
Unicode's private planes; after it the template's own get names of that kind, the contents their text back, and the
whole is encoded by a copy of the tokenizer that knows the control tokens by these names alone.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

HIDDEN, RENAMED = 0xF0000, 0x100000
"""First characters of two private planes: for control tokens in contents, and for those of the template."""


class ControlTokens:
    """The control tokens of a tokenizer: those marked special, and the one that ends a turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, turn_end_id: int) -> None:
        added = tokenizer.added_tokens_decoder
        self.tokenizer = tokenizer
        self.names = [str(t) for n, t in sorted(added.items()) if t.special or n == turn_end_id]
        """Their texts, in the order of their ids."""
        # An unknown letter gets the id of <unk>, so that one is no sign of anything.
        self._ids = {n for n, t in added.items() if t.special or n == turn_end_id} - {tokenizer.unk_token_id}
        self._unknown = tokenizer.unk_token
        self._number = {name: i for i, name in enumerate(self.names)}
        longest = sorted(self.names, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        # Only where text is normalised first can a control token come out of another text than its own.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._loose = (
            backend is not None
            and backend.normalizer is not None
            and any(t.normalized for n, t in added.items() if n in self._ids)
        )

    def hide(self, match: re.Match[str]) -> str:
        """The character that stands for a control token inside a content."""
        return chr(HIDDEN + self._number[match[0]])

    def are_the_texts(self, ids: list[int], text: str) -> bool:
        """Whether the control tokens among ``ids`` are those written in the text."""
        return not self._loose or sum(i in self._ids for i in ids) == self._count(text)

    def _count(self, text: str) -> int:
        return sum(name != self._unknown for name in self.pattern.findall(text))

    def ids(self, text: str) -> list[int] | None:
        """Ids of a rendered text with hidden control tokens; None where one cannot be told from a real one."""
        if self._renamed is None:
            return None
        backend, original = self._renamed
        renamed = self.pattern.sub(lambda m: chr(RENAMED + self._number[m[0]]), text)
        plain = self._stand_ins.sub(lambda m: self.names[ord(m[0]) - HIDDEN], renamed)
        found = [original.get(i, i) for i in backend.encode(plain, add_special_tokens=False).ids]
        # A model whose vocabulary holds the token's text as a word of its own could still find it.
        return found if sum(i in self._ids for i in found) == self._count(text) else None

    @cached_property
    def _stand_ins(self) -> re.Pattern[str]:
        return re.compile(f"[{chr(HIDDEN)}-{chr(HIDDEN + len(self.names) - 1)}]")

    @cached_property
    def _renamed(self) -> tuple[Tokenizer, dict[int, int]] | None:
        """A copy of the tokenizer with other names for its control tokens, and its ids of added tokens -> the real."""
        from tokenizers import Tokenizer

        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        document: dict[str, Any] = json.loads(backend.to_str())
        # what would be put around a text names tokens that the copy does not have
        document |= {"post_processor": None, "truncation": None, "padding": None}
        real: dict[str, int] = {}
        for token in document["added_tokens"]:
            if token["content"] in self._number:
                token["content"], name = chr(RENAMED + self._number[token["content"]]), token["content"]
                real[token["content"]] = self.tokenizer.convert_tokens_to_ids(name)
            else:
                real[token["content"]] = int(token["id"])
        _never_as_words(document["model"], self._number)
        copy = Tokenizer.from_str(json.dumps(document))
        ids: dict[str, int] = copy.get_vocab()
        return copy, {ids[name]: number for name, number in real.items()}


def _never_as_words(model: dict[str, Any], names: dict[str, int]) -> None:
    """SentencePiece's unigram model never takes a control piece for text; its copy in ``tokenizers`` would."""
    if model.get("type") == "Unigram":
        model["vocab"] = [[piece, -1e6 if piece in names else score] for piece, score in model["vocab"]]
