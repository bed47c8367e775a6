"""What runs the model: one small interface, chosen by name in YAML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.registry import Registry
from sdrrl_nemo.data.text.conversation import Unmaskable, assistant, shared, user
from sdrrl_nemo.data.text.tokenizer import tokenize
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.model_folder import ModelFolder
from sdrrl_nemo.eval.task import Choose, Generate, Loss, Request, State

Advance = Callable[[float], object]
T = TypeVar("T")
GENERATED_TOKEN_COST = 3
"""Cost of one generated token in prompt tokens (2-core CPU); only the progress bar's ETA uses it."""


@dataclass(frozen=True)
class Encoded:
    """``tokens`` of a rendered question and answer; the first ``prompt_tokens`` are the prompt, the rest has loss."""

    tokens: list[int]
    prompt_tokens: int


def encode_samples(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answers: Sequence[str]
) -> list[Encoded]:
    """Question and answer of each sample, by the very function that tokenises the training data."""
    return [Encoded(list(ids), prompt) for ids, prompt in tokenize(tokenizer, questions, answers)]


def check_lengths(lengths: Sequence[int], limit: int | None, what: str) -> None:
    """SdrrlError when a text does not fit into the model's positions."""
    if limit is not None and lengths and max(lengths) > limit:
        raise SdrrlError(
            f"{what}: {max(lengths)} tokens do not fit into the model's {limit} positions; shorten the text"
        )


class Backend(ABC):
    """Answers requests in order; ``folder`` brings the tokenizer, so that every backend sees the same token ids."""

    def __init__(self, folder: ModelFolder, config: EvalConfig | BenchmarkConfig) -> None:
        self.folder, self.config = folder, config
        self.adopt()

    def adopt(self, dtype: str = "", batch_size: int = 0) -> None:
        """Number format and batch of what is asked next (see Task); identity() speaks of them."""
        self.dtype, self.batch_size = dtype or self.config.dtype, batch_size

    def together(self, batch_size: int) -> bool:
        """Whether answers of several tasks with this ``batch_size`` (see Task) are asked for at once (evaluation.py): a
        restart repeats all of them."""
        return False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything besides the model folder that can change an output."""

    def prepare(self) -> None:  # noqa: B027 - a server has nothing to load
        """Load what the first request needs, so that no task's time holds it."""

    @abstractmethod
    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        """Greedy answers {"text", "tokens", "finished"} of at most ``limits[i]`` tokens."""

    @abstractmethod
    def choose(
        self, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], advance: Advance
    ) -> list[list[float]]:
        """ln p of each continuation of each context, summed over the continuation's tokens."""

    def states(self, prompts: Sequence[Sequence[int]], advance: Advance) -> list[Any]:
        """Hidden states; a server does not give them away."""
        raise SdrrlError(
            f"backend '{self.config.backend.name}' has no hidden states; leave 'alignment' out of names, or use "
            "backend.name=transformers"
        )

    def losses(self, samples: Sequence[Encoded], advance: Advance) -> list[Any]:
        """{"mean", "answer_tokens"} of each sample; only the backend in this process has them so far."""
        raise SdrrlError(f"backend '{self.config.backend.name}' has no losses; use backend.name=transformers")

    def encode(self, text: str, chat: bool) -> list[int]:
        """Token ids of a user's turn (``chat``), or of plain text with the tokenizer's own beginning token."""
        if chat:
            return exact(self.folder.chat.prompts([[user(text)]])[0])
        ids = self.folder.tokenizer(text, add_special_tokens=True)["input_ids"]
        return without_end(list(ids), self.folder.tokenizer.eos_token_id)

    def fit(self, request: Generate) -> tuple[list[int], bool]:
        """Token ids of the prompt, and whether its ``text`` lost its end to fit in with the answer.

        The longest beginning (in words, or characters where there are no spaces) that fits is kept.
        """
        ids = self.encode(request.prompt, request.chat)
        limit = self.folder.positions
        if limit is None or len(ids) + request.max_new_tokens <= limit or not request.text:
            return ids, False
        before, found, after = request.prompt.partition(request.text)
        assert found, "the text is part of its prompt"
        spaced = request.text.count(" ") > len(request.text) / 50
        pieces, joint = (request.text.split(" "), " ") if spaced else (list(request.text), "")
        low, high = 0, len(pieces) - 1  # pieces kept: low fits, or nothing does
        while low < high:
            middle = (low + high + 1) // 2
            ids = self.encode(before + joint.join(pieces[:middle]) + after, request.chat)
            low, high = (middle, high) if len(ids) + request.max_new_tokens <= limit else (low, middle - 1)
        return self.encode(before + joint.join(pieces[:low]) + after, request.chat), True

    def encode_choice(self, request: Choose) -> tuple[list[int], list[list[int]]]:
        """Context and continuations as token ids: each text is tokenised whole, then cut, so that the ids scored are
        those that the model would read, and a space before the answer belongs to the answer's token.

        The cut is where the context's own ids end, as in lm-evaluation-harness, or before that where the tokenizer
        joins the context's last letters with the answer's first ones.
        """
        if request.chat:
            asked = [[user(request.context), assistant(c)] for c in request.choices]
            opened = [exact(found) for found in self.folder.chat.open_answers(asked)]
            whole, cut = [ids for ids, _ in opened], min(n for _, n in opened)
        else:
            context = self.encode(request.context, False)
            whole = [self.encode(request.context + c, False) for c in request.choices]
            cut = min(shared(context, ids) for ids in whole)
        return whole[0][:cut], [ids[cut:] for ids in whole]

    def work(self, requests: Sequence[Request]) -> int:
        """Rough cost in tokens, for the progress bar: characters / 4 and the answers' limits."""
        total = 0.0
        for r in requests:
            total += len(r.context if isinstance(r, Choose) else r.prompt) / 4
            if isinstance(r, Generate):
                total += GENERATED_TOKEN_COST * r.max_new_tokens
        return round(total)

    def run(self, requests: Sequence[Request], advance: Advance) -> list[Any]:
        """Outputs in the order of ``requests``, which are all of one kind."""
        cost = self.work(requests) / len(requests)
        step: Advance = lambda n: advance(n * cost)  # noqa: E731
        if isinstance(requests[0], Generate):
            asked = [r for r in requests if isinstance(r, Generate)]
            fitted = [self.fit(r) for r in asked]
            outputs = self.generate([ids for ids, _ in fitted], [r.max_new_tokens for r in asked], step)
            return [{**o, "shortened": cut} for o, (_, cut) in zip(outputs, fitted, strict=True)]
        if isinstance(requests[0], Choose):
            encoded = [self.encode_choice(r) for r in requests if isinstance(r, Choose)]
            for (_, choices), r in zip(encoded, requests, strict=True):
                if not all(choices):
                    raise SdrrlError(f"a choice has no tokens of its own after its context: {r!r:.200}")
            return self.choose([c for c, _ in encoded], [k for _, k in encoded], step)
        if isinstance(requests[0], Loss):
            texts = [(r.prompt, r.answer) for r in requests if isinstance(r, Loss)]
            samples = encode_samples(self.folder.tokenizer, [t[0] for t in texts], [t[1] for t in texts])
            return self.losses(samples, step)
        out: list[Any] = []
        for _, group in groupby((r for r in requests if isinstance(r, State)), key=lambda r: r.group):
            out += self.states([self.encode(r.prompt, True) for r in group], step)
        return out


def exact(found: T | Unmaskable) -> T:
    """SdrrlError for a question that the model's chat template does not render."""
    if isinstance(found, Unmaskable):
        raise SdrrlError(f"a question cannot be put to the model: {found.reason}")
    return found


def without_end(ids: list[int], eos: int | None) -> list[int]:
    """Some tokenizers close plain text with their end token; a prompt must stay open."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == eos else ids


BACKENDS: Registry[Backend] = Registry("evaluation backend")
"""name -> class; filled by importing sdrrl_nemo.eval.backends."""
