"""What generators share that run a Hugging Face folder's model in this process: prompts, room, batches by length."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, content_key, read_json
from sdrrl_nemo.data.engines.base import CUT, Answer
from sdrrl_nemo.data.engines.contents import matching
from sdrrl_nemo.data.engines.generate.answers import TellingGenerator, check_unfinished
from sdrrl_nemo.data.rows import Message
from sdrrl_nemo.data.text.chat_template import TemplateConfig
from sdrrl_nemo.data.text.conversation import Chat, Unmaskable
from sdrrl_nemo.data.text.tokenizer import load_chat

WEIGHT_FILES = ("*.safetensors", "*.bin")
CARRIED_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""What transformers reads of a model's folder: weights, and configuration, tokenizer and chat template."""
NOT_RENDERED = "refused by the chat template"
NO_ROOM = "no room for an answer in the model's positions"
LOOP = "stopped in a loop"


def check_repetition_penalty(where: str, penalty: float) -> float:
    """``penalty`` as it is, or SdrrlError.

    Logits of tokens that the answer already holds are divided by it where positive and multiplied where negative (CTRL,
    Keskar et al. 2019); 1 leaves them alone. Tokens of the question are not meant: an answer may quote it.
    """
    if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not 1 <= penalty <= 2:
        raise SdrrlError(f"{where}: repetition_penalty is {penalty}; a number from 1 (none) to 2 is needed")
    return float(penalty)


@dataclass(frozen=True)
class Prompt:
    """What is asked, as text that seeds random draws, and as token ids."""

    text: str
    ids: list[int]


class LocalGenerator(TellingGenerator):
    """Conversations to token ids, in batches, and token ids to answers; a subclass runs the model.

    The questions of one call are sorted by length and answered in batches of ``batch_size``, so which questions share a
    batch follows from the call's questions alone. Only the options here steer generation; the folder's own
    generation_config.json names end tokens and nothing else.
    """

    where: str
    """Begins every sentence about an option."""
    _penalty = 1.0

    def __init__(
        self,
        model: str,
        max_new_tokens: int,
        batch_size: int,
        unfinished: str,
        licence: str | None,
        templates: Mapping[str, Any] | None,
    ) -> None:
        self._folder = Path(model)
        if not (self._folder / "config.json").is_file():
            raise SdrrlError(
                f"{self.where}: {model} holds no model (no config.json); make it with tools/import_gguf.py "
                "or correct 'model'"
            )
        if max_new_tokens < 1 or batch_size < 1:
            raise SdrrlError(f"{self.where}: max_new_tokens >= 1 and batch_size >= 1 are needed")
        self.max_new_tokens, self._batch_size = max_new_tokens, batch_size
        self.unfinished = check_unfinished(self.where, unfinished)
        self._templates = TemplateConfig(**(templates or {}))
        self.licence = licence or self._stated_licence()

    def _stated_licence(self) -> str:
        from sdrrl_nemo.model.gguf import MARK

        mark = self._folder / MARK
        return str(read_json(mark).get("licence", "unstated")) if mark.is_file() else "unstated by the model folder"

    def _identified(self, name: str, *options: object) -> str:
        """Name and every option that can change an answer, the chat template among them."""
        shared = (self.max_new_tokens, self._batch_size, self.unfinished, self._chat.tokenizer.chat_template)
        return f"{name}/{self._folder.name}/{content_key([*options, *shared])}"

    @property
    def _penalised(self) -> tuple[float, ...]:
        """Part of the identity where there is a penalty; without one old answers stay what they were."""
        return (self._penalty,) if self._penalty != 1 else ()

    def files(self, *languages: str) -> Iterable[Path]:
        return matching(self._folder, (*WEIGHT_FILES, *CARRIED_FILES))

    def check(self, *languages: str) -> None:
        """Whether there are weights, and a chat template that can be used."""
        super().check(*languages)
        if not matching(self._folder, WEIGHT_FILES):
            raise SdrrlError(f"{self._folder}: no weights in this folder ({' or '.join(WEIGHT_FILES)})")
        _ = self._chat

    @cached_property
    def _chat(self) -> Chat:
        chat = load_chat(self._folder, self._templates, padding_side="left")
        if chat.tokenizer.pad_token_id is None:
            chat.tokenizer.pad_token = chat.tokenizer.convert_ids_to_tokens(min(chat.end_token_ids))
        return chat

    @property
    def _tokenizer(self) -> Any:
        return self._chat.tokenizer

    @abstractmethod
    def _positions(self) -> int | None:
        """Tokens that fit into one text; None: the model states no limit."""

    @abstractmethod
    def _run(self, batches: Iterable[list[Prompt]]) -> Iterator[list[list[int]]]:
        """For each batch the new tokens of its rows, with the one that ended an answer where one did."""

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """Answers as generated, untrimmed. One that the template refuses, or that leaves no room for an answer among
        the model's positions, gets an empty answer, which is not finished."""
        if not conversations:
            return []
        prompts = self._prompts(conversations)
        answers = {i: p for i, p in enumerate(prompts) if isinstance(p, Answer)}
        asked = {i: p for i, p in enumerate(prompts) if isinstance(p, Prompt)}
        # Longest first: if memory does not do, that shows at once. Equal lengths by text, so order does not matter.
        order = sorted(asked, key=lambda i: (-len(asked[i].ids), asked[i].text))
        batches = [order[n : n + self._batch_size] for n in range(0, len(order), self._batch_size)]
        for batch, rows in zip(batches, self._run([[asked[i] for i in b] for b in batches]), strict=True):
            answers |= zip(batch, map(self._read, rows), strict=True)
        return [answers[i] for i in range(len(conversations))]

    def _prompts(self, conversations: Sequence[Sequence[Message]]) -> list[Prompt | Answer]:
        """What to ask, or the empty answer of a conversation that cannot be asked."""
        limit = self._positions()
        room = limit - self.max_new_tokens if limit else None
        found: list[Prompt | Answer] = []
        lengths: list[int] = []
        for asked, ids in zip(conversations, self._chat.prompts(conversations), strict=True):
            if isinstance(ids, Unmaskable):
                found.append(Answer("", False, 0, NOT_RENDERED))
                continue
            lengths.append(len(ids))
            text = asked[0]["content"] if len(asked) == 1 else canonical_json(asked)
            fits = room is None or len(ids) <= room
            found.append(Prompt(text, ids) if fits else Answer("", False, 0, NO_ROOM))
        if lengths and not any(isinstance(p, Prompt) for p in found):  # not one row's fault but the configuration's
            raise SdrrlError(
                f"a question of {min(lengths)} tokens plus {self.max_new_tokens} new ones exceeds "
                f"the model's {limit}, and the others are longer; lower generation.engine.options.max_new_tokens"
            )
        return found

    def _read(self, tokens: list[int]) -> Answer:
        """Answer of one row: up to the first token that ends an answer; without one it was cut."""
        ends = self._chat.end_token_ids
        kept = list(itertools.takewhile(lambda token: token not in ends, tokens))
        finished = len(kept) < len(tokens)
        text = self._tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Answer(text, finished, len(kept), LOOP if not finished and len(tokens) < self.max_new_tokens else CUT)
