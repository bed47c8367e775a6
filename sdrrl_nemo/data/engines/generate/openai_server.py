"""y_hat from a vLLM, SGLang or other server that speaks the OpenAI chat protocol."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from sdrrl_nemo.common.errors import RowError, SdrrlError
from sdrrl_nemo.common.fileio import canonical_json, content_key, whole_text
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.engines.base import CUT, GENERATORS, Answer
from sdrrl_nemo.data.engines.generate.answers import TellingGenerator, check_unfinished
from sdrrl_nemo.data.engines.http_json import JsonClient, Retry
from sdrrl_nemo.data.engines.served_model import ServedModel, fields_of
from sdrrl_nemo.data.rows import Message

REVISION = 3
"""Changes whenever the code here may give another answer to the same question."""
RESERVED = ("model", "messages", "n", "stream", "max_tokens", "temperature", "top_p", "seed")


@GENERATORS.register("openai_server")
class OpenAiServerGenerator(TellingGenerator):
    """Chat completions, ``concurrency`` requests at a time, answers in the order of the questions.

    ``model`` must be among the server's /v1/models. The server cannot be asked which weights it serves: ``revision``
    (commit, date, quantisation) says it and is part of the identity, so change it when the weights change. Each
    request is seeded by ``seed`` and its question alone; at temperature 0 a server's own batching may still decide a
    tie between two tokens. ``unfinished`` treats ``finish_reason: length`` as the engine 'hf' does. ``extra`` goes
    into each request's body as it is (``top_k``, ``chat_template_kwargs``, ...). The key is read from the environment
    variable named ``api_key_env`` when a request is made; it is never kept, logged or shown.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        revision: str = "",
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        unfinished: str = "drop",
        concurrency: int = 32,
        timeout_s: float = 600.0,
        retries: int = 6,
        backoff_s: float = 1.0,
        api_key_env: str = "",
        extra: Mapping[str, Any] | None = None,
        licence: str | None = None,
        templates: Mapping[str, Any] | None = None,
    ) -> None:
        where = "generator 'openai_server'"
        retry = Retry(timeout_s=timeout_s, retries=retries, backoff_s=backoff_s)
        self._served = ServedModel(where, model, base_url, concurrency, retry, api_key_env)
        self.unfinished = check_unfinished(where, unfinished)
        if max_new_tokens < 1 or temperature < 0:
            raise SdrrlError(f"{where}: max_new_tokens >= 1 and temperature >= 0 are needed")
        if not 0 < top_p <= 1:
            raise SdrrlError(f"{where}: top_p is {top_p}; 0 < top_p <= 1 is needed")
        self._extra = fields_of(extra, RESERVED, where)
        # The server renders: of the run's template it can be told the options. Which template it has is its own affair.
        if (templates or {}).get("options"):
            given = self._extra.get("chat_template_kwargs") or {}
            self._extra["chat_template_kwargs"] = {**(templates or {})["options"], **given}
        self._revision = revision
        self._sampling = {"max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        self._seed = seed
        self.licence = licence or "unstated by the server"

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Served model and every option that can change an answer; where the server stands is not among them."""
        options = (REVISION, self._revision, self._sampling, self._seed, self.unfinished, self._extra)
        return f"openai_server/{self._served.name}@{self._revision or 'unstated'}/{content_key(options)}"

    def try_out(self) -> None:
        """Whether the server answers and serves the model."""
        self._served.try_out()

    def answers_to(self, conversations: Sequence[Sequence[Message]]) -> list[Answer]:
        """Answers as the server gave them. SdrrlError after the last try, or at once where trying again cannot help."""
        return self._served.side_by_side(conversations, self._ask)

    def _ask(self, client: JsonClient, number: int, conversation: Sequence[Message], stop: threading.Event) -> Answer:
        question = conversation[0]["content"] if len(conversation) == 1 else canonical_json(conversation)
        body = {
            "model": self._served.name,
            "messages": list(conversation),
            **self._sampling,
            "seed": derive_seed(self._seed, "generate", question) % 2**31,
            **self._extra,
        }
        try:
            return client.call("/chat/completions", body, (self._seed, question), read_answer, stop)
        except RowError as e:
            raise RowError(f"{e}; asked: '{' '.join(question.split())[:60]}'", e.reason) from None
        except SdrrlError as e:
            raise SdrrlError(f"{e}; asked: '{' '.join(question.split())[:60]}'") from None


def read_answer(reply: Any) -> Answer:
    """First choice of a chat completion; what a content filter took away is no answer."""
    choice = reply["choices"][0]
    text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
    if reason == "content_filter":
        text = ""
    tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
    why = {"length": CUT, "content_filter": "content filter of the server"}.get(reason, "not ended by the model")
    return Answer(whole_text(str(text)).strip(), reason == "stop", tokens, CUT if reason == "stop" else why)
