"""Conversations as a model is trained on them: the ids of the rendered text, and which of them the loss is on.

The whole conversation is rendered by the chat template and tokenised as one text, up to the token with which the
template ends the assistant's last turn. The loss is on what the model has to write: from where its prompt ends, the
answer, and that token. So a prompt's ids must be the beginning of the whole text's ids; where they are not, there is no
exact mask, and the conversation is refused.

    <|im_start|>user\\nWhy?<|im_end|>\\n<|im_start|>assistant\\nBecause.<|im_end|>
    ------------------- prompt: no loss -------------------======= loss =======

Control tokens in a question or an answer are plain text: a row can neither end its turn nor open another.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.rows import Message
from sdrrl_nemo.data.text.chat_template import MARK
from sdrrl_nemo.data.text.control_tokens import ControlTokens
from sdrrl_nemo.data.text.token_ids import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUPERVISE = ("all", "last")
"""Which of a conversation's answers the loss is on."""
PROBES = (
    "Yes.", "42 digits", "1. first\n2. second", "água", "猫が好き", "ខ្ញុំ", "Да", '"quoted"', "'single'", "«x»", "(a) b",
    "- list", "*bold*", "```py\nx = 1\n```", "{'a': 1}", "<b>x</b>", "😀", "e\u0301", "한국어", "ا", "...", "$5",
    " space", "\n\nlines", "\ttab",
)  # fmt: skip
"""Questions and answers with which a template and a tokenizer are tried before any stage."""


@dataclass(frozen=True)
class Encoded:
    """``tokens`` of a conversation; ``spans`` [first, end) are those with loss, one for each supervised answer.

    ``plain``: how many control tokens stood in its contents and were encoded as plain text.
    """

    tokens: list[int]
    spans: list[tuple[int, int]]
    plain: int = 0


@dataclass(frozen=True)
class Unmaskable:
    """A conversation that the template does not render, or whose loss has no exact place; ``reason`` says why."""

    reason: str


@dataclass(frozen=True)
class _Hidden:
    turns: list[Message]
    plain: int


@dataclass(frozen=True)
class _Rendered:
    texts: list[str]
    plain: int
    refused: Unmaskable | None = None


class Chat:
    """A tokenizer with its chat template: conversations to ids.

    Contents are rendered without white space at their ends, which templates and tokenizers treat in different ways. A
    system turn goes to the first question where the template has none of its own.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_token_ids: Iterable[int] = (), is_own: bool = True
    ) -> None:
        """``end_token_ids``: what ends an answer besides the template's own token. ``is_own``: whether the template is
        the folder's, to the letter."""
        self.tokenizer, self.is_own = tokenizer, is_own
        self._ends = frozenset(end_token_ids)

    # --- what the template does ---

    @cached_property
    def tail(self) -> str:
        """What the template writes after the last answer."""
        try:
            whole = self._render([user("q"), assistant(MARK)], False)
        except Exception as e:  # a template may raise anything that its expressions can
            raise SdrrlError(f"the chat template cannot be rendered ({said(e)})") from None
        _, found, tail = whole.rpartition(MARK)
        if not found:
            raise SdrrlError("the chat template leaves the answer out")
        return tail

    @cached_property
    def turn_end(self) -> str:
        """The beginning of `tail` up to the first control token, with which an answer ends."""
        added = sorted((str(t) for t in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        marks = "|".join(re.escape(t) for t in added if t.strip())
        match = re.search(marks, self.tail) if marks else None
        if match is None:
            raise SdrrlError(
                f"the chat template ends an answer with {self.tail!r}, in which there is no token that could end "
                "generation; name another with templates.chat_template"
            )
        return self.tail[: match.end()]

    @cached_property
    def turn_end_id(self) -> int:
        """Id of the token with which an answer ends."""
        return token_ids(self.tokenizer, [self.turn_end])[0][-1]

    @cached_property
    def end_token_ids(self) -> frozenset[int]:
        """Every token that ends an answer: the template's, the tokenizer's, and those of the model's folder."""
        eos = self.tokenizer.eos_token_id
        return self._ends | {self.turn_end_id} | (frozenset() if eos is None else {int(eos)})

    @cached_property
    def has_system_turn(self) -> bool:
        """Whether the template renders a system turn."""
        found = self._attempt([{"role": "system", "content": MARK}, user("q")], True)
        return isinstance(found, str) and MARK in found

    def check(self, where: str) -> None:
        """SdrrlError where conversations with this template and tokenizer have no exact mask; ``where`` names them."""
        asked = [[user(p), assistant(a)] for p, a in zip(PROBES, reversed(PROBES), strict=True)]
        try:
            for found, (_, answer) in zip(self.encode(asked), asked, strict=True):
                if isinstance(found, Unmaskable):
                    raise SdrrlError(f"{found.reason} (tried with the answer {answer['content']!r})")
        except SdrrlError as e:
            raise SdrrlError(f"{where}: {e}") from None

    # --- conversations to ids ---

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int] | Unmaskable]:
        """Ids up to where the model's answer begins; each conversation ends with a question."""
        asked = [self._hidden(c) for c in conversations]
        texts = self._texts([(a.turns, True) for a in asked])
        rendered = [
            _Rendered([], a.plain, t) if isinstance(t, Unmaskable) else _Rendered([t], a.plain)
            for a, t in zip(asked, texts, strict=True)
        ]
        return [ids if isinstance(ids, Unmaskable) else ids[0] for ids in self._all_ids(rendered)]

    def encode(self, conversations: Sequence[Sequence[Message]], supervise: str = "all") -> list[Encoded | Unmaskable]:
        """Ids and supervised spans of conversations that end with an answer, in their order; nothing is cut.

        ``supervise``: the loss is on ``all`` answers, or on the ``last``.
        """
        rendered = self._rendered(conversations, supervise)
        return [
            ids if isinstance(ids, Unmaskable) else self._masked(ids, r.plain)
            for ids, r in zip(self._all_ids(rendered), rendered, strict=True)
        ]

    def open_answers(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[list[int], int] | Unmaskable]:
        """(ids up to the last character of the last answer, how many of them are the prompt's): what the likelihood of
        an answer is of."""
        rendered = [
            dataclasses.replace(r, texts=[r.texts[-2], r.texts[-1].removesuffix(self.turn_end)]) if r.texts else r
            for r in self._rendered(conversations, "last")
        ]
        return [ids if isinstance(ids, Unmaskable) else (ids[1], shared(*ids)) for ids in self._all_ids(rendered)]

    def _rendered(self, conversations: Sequence[Sequence[Message]], supervise: str) -> list[_Rendered]:
        """Prompt and closed answer of each supervised turn in turn; the last text is the whole conversation."""
        if supervise not in SUPERVISE:
            raise SdrrlError(f"supervise: unknown value '{supervise}'{suggest(supervise, SUPERVISE)}")
        asked = [self._hidden(c) for c in conversations]
        jobs: list[list[tuple[list[Message], bool]]] = []
        for a in asked:
            answers = [k for k, turn in enumerate(a.turns) if turn["role"] == "assistant"]
            if not answers or answers[-1] != len(a.turns) - 1:
                raise ValueError("a conversation to learn from ends with the assistant's turn")
            chosen = answers if supervise == "all" else answers[-1:]
            jobs.append([job for k in chosen for job in ((a.turns[:k], True), (a.turns[: k + 1], False))])
        texts = iter(self._texts([job for each in jobs for job in each]))
        return [self._cut(a.plain, [next(texts) for _ in each]) for a, each in zip(asked, jobs, strict=True)]

    def _cut(self, plain: int, texts: Sequence[str | Unmaskable]) -> _Rendered:
        """Closed answers cut after the token that ends them; every text is the beginning of the last one."""
        out: list[str] = []
        for number, text in enumerate(texts):
            if isinstance(text, Unmaskable):
                return _Rendered([], plain, text)
            if number % 2:
                if not text.endswith(self.tail):
                    return _Rendered([], plain, Unmaskable("the chat template ends this answer in another way"))
                out.append(text[: len(text) - len(self.tail) + len(self.turn_end)])
            else:
                out.append(text)
        if not out[-1].startswith(out[-2]):
            reason = (
                f"the chat template's prompt, which ends with {out[-2][-30:]!r}, is not the beginning of what it "
                "renders with the answer; set templates.options or templates.chat_template"
            )
            return _Rendered([], plain, Unmaskable(reason))
        if not all(out[-1].startswith(text) for text in out):
            return _Rendered([], plain, Unmaskable("the chat template changes an earlier turn once another follows"))
        return _Rendered(out, plain)

    def _masked(self, ids: list[list[int]], plain: int) -> Encoded | Unmaskable:
        """Spans between the ends of prompts and of closed answers."""
        whole = ids[-1]
        if any(whole[: len(part)] != part for part in ids):
            return Unmaskable("the tokenizer joins the beginning of an answer with the end of its prompt")
        spans = [(len(prompt), len(closed)) for prompt, closed in zip(ids[::2], ids[1::2], strict=True)]
        if any(not 0 < begin < end or whole[end - 1] != self.turn_end_id for begin, end in spans):
            return Unmaskable("an answer does not end with the token that ends a turn")
        return Encoded(whole, spans, plain)

    # --- rendering ---

    def _render(self, conversation: Sequence[Message], prompt: bool) -> str:
        text = self.tokenizer.apply_chat_template(list(conversation), add_generation_prompt=prompt, tokenize=False)
        return str(text)

    def _texts(self, jobs: Sequence[tuple[list[Message], bool]]) -> list[str | Unmaskable]:
        """Each (conversation, whether as a prompt) rendered."""
        out: list[str | Unmaskable] = [""] * len(jobs)
        for prompt in (True, False):
            numbers = [i for i, (_, kind) in enumerate(jobs) if kind == prompt]
            if not numbers:
                continue
            try:  # all in one call: a call of its own for each costs more than the template
                found: Sequence[str | Unmaskable] = self.tokenizer.apply_chat_template(
                    [jobs[i][0] for i in numbers], add_generation_prompt=prompt, tokenize=False
                )
            except Exception:  # one that the template refuses is found one by one
                found = [self._attempt(*jobs[i]) for i in numbers]
            for i, text in zip(numbers, found, strict=True):
                out[i] = text
        return out

    def _attempt(self, conversation: list[Message], prompt: bool) -> str | Unmaskable:
        try:
            return self._render(conversation, prompt)
        except Exception as e:  # whatever the template's expressions raise
            return Unmaskable(f"the chat template refuses the conversation ({said(e)})")

    def _hidden(self, conversation: Sequence[Message]) -> _Hidden:
        """The turns as they are rendered: stripped, control tokens of their contents replaced by stand-ins."""
        turns: list[Message] = [{"role": m["role"], "content": m["content"].strip()} for m in conversation]
        if len(turns) > 1 and turns[0]["role"] == "system" and not self.has_system_turn:
            joined = f"{turns[0]['content']}\n\n{turns[1]['content']}".strip()
            turns = [{"role": turns[1]["role"], "content": joined}, *turns[2:]]
        elif turns and turns[0] == {"role": "system", "content": ""}:
            turns = turns[1:]
        plain = 0
        for turn in turns:
            turn["content"], found = self._controls.pattern.subn(self._controls.hide, turn["content"])
            plain += found
        return _Hidden(turns, plain)

    @cached_property
    def _controls(self) -> ControlTokens:
        return ControlTokens(self.tokenizer, self.turn_end_id)

    def _all_ids(self, rendered: Sequence[_Rendered]) -> list[list[list[int]] | Unmaskable]:
        """Ids of every text of each."""
        # all in one call of the tokenizer: a call for each costs more than its tokens
        flat = iter(token_ids(self.tokenizer, [t for r in rendered if not r.plain for t in r.texts]))
        out: list[list[list[int]] | Unmaskable] = []
        for r in rendered:
            if r.refused:
                out.append(r.refused)
                continue
            ids = None if r.plain else [next(flat) for _ in r.texts]
            if ids is None or not all(map(self._controls.are_the_texts, ids, r.texts)):
                found = [self._controls.ids(text) for text in r.texts]
                ids = [x for x in found if x is not None]
                if len(ids) < len(found):
                    out.append(Unmaskable("a control token in a text cannot be written as plain text here"))
                    continue
            out.append(ids)
        return out


def user(content: str) -> Message:
    """A question."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An answer."""
    return {"role": "assistant", "content": content}


def said(e: BaseException) -> str:
    """What an exception says, in one line of at most 200 characters."""
    return " ".join(str(e).split())[:200] or type(e).__name__


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
