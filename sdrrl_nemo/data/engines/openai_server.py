"""y_hat from a vLLM, SGLang or other server that speaks the OpenAI chat protocol."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.engines.answers import UNFINISHED, Answer, settle
from sdrrl_nemo.data.engines.base import GENERATORS, Generator
from sdrrl_nemo.data.engines.http_json import JsonClient, Retry

REVISION = 1
"""Changes whenever the code here may give another answer to the same question."""
RESERVED = ("model", "messages", "n", "stream", "max_tokens", "temperature", "top_p", "seed")


@GENERATORS.register("openai_server")
class OpenAiServerGenerator(Generator):
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
        unfinished: str = "keep",
        concurrency: int = 32,
        timeout_s: float = 600.0,
        retries: int = 6,
        backoff_s: float = 1.0,
        api_key_env: str = "",
        extra: Mapping[str, Any] | None = None,
        licence: str | None = None,
    ) -> None:
        where = "generator 'openai_server'"
        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
            raise SdrrlError(f"{where}: base_url '{base_url}' is no http(s) address such as http://host:8000/v1")
        if urlsplit(base_url).username:
            raise SdrrlError(f"{where}: base_url holds credentials; name the variable with the key in api_key_env")
        if unfinished not in UNFINISHED:
            raise SdrrlError(f"{where}: unfinished '{unfinished}' is unknown{suggest(unfinished, UNFINISHED)}")
        if min(max_new_tokens, concurrency) < 1 or min(temperature, retries, backoff_s) < 0 or timeout_s <= 0:
            raise SdrrlError(
                f"{where}: max_new_tokens and concurrency >= 1, timeout_s > 0, temperature, retries and backoff_s >= 0 "
                "are needed"
            )
        if not 0 < top_p <= 1:
            raise SdrrlError(f"{where}: top_p is {top_p}; 0 < top_p <= 1 is needed")
        self._extra = dict(extra or {})
        if taken := sorted(set(self._extra) & set(RESERVED)):
            raise SdrrlError(f"{where}: extra.{taken[0]} has an option of its own or cannot be set")
        self._model, self._url, self._revision, self._key_name = model, base_url.rstrip("/"), revision, api_key_env
        self._sampling = {"max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        self._seed, self._unfinished, self._concurrency = seed, unfinished, concurrency
        self._retry = Retry(timeout_s=timeout_s, retries=retries, backoff_s=backoff_s)
        self.licence = licence or "unstated by the server"

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Served model and every option that can change an answer; where the server stands is not among them."""
        options = (REVISION, self._revision, self._sampling, self._seed, self._unfinished, self._extra)
        return f"openai_server/{self._model}@{self._revision or 'unstated'}/{content_key(options)}"

    @cached_property
    def _client(self) -> JsonClient:
        """Connection settings, made once the server has said that it serves the model."""
        if self._key_name and not os.environ.get(self._key_name):
            raise SdrrlError(f"generator 'openai_server': the environment variable {self._key_name} is not set")
        client = JsonClient(self._url, self._key_name, self._retry)
        listing = client.call("/models", None, ("models",), _model_ids)
        if self._model not in listing:
            near = suggest(self._model, listing)
            raise SdrrlError(f"{self._url}: the server does not serve model '{self._model}'{near}")
        return client

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """Answers as the server gave them. SdrrlError after the last try, or at once where trying again cannot help."""
        if not questions:
            return []
        client, stop = self._client, threading.Event()
        pool = ThreadPoolExecutor(min(self._concurrency, len(questions)))
        futures = [pool.submit(self._ask, client, question, stop) for question in questions]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after a failure nobody waits for requests that no longer matter
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        for future in futures:
            if future in done and (error := future.exception()):
                raise error
        return [future.result() for future in futures]

    def _ask(self, client: JsonClient, question: str, stop: threading.Event) -> Answer:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            **self._sampling,
            "seed": derive_seed(self._seed, "generate", question) % 2**31,
            **self._extra,
        }
        try:
            return client.call("/chat/completions", body, (self._seed, question), _read_answer, stop)
        except SdrrlError as e:
            raise SdrrlError(f"{e}; asked: '{' '.join(question.split())[:60]}'") from None

    def generate(self, questions: Sequence[str]) -> list[str]:
        return [settle(answer, self._unfinished) for answer in self.answer(questions)]


def _model_ids(reply: Any) -> list[str]:
    return [str(entry["id"]) for entry in reply["data"]]


def _read_answer(reply: Any) -> Answer:
    """First choice of a chat completion; what a content filter took away is no answer."""
    choice = reply["choices"][0]
    text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
    if reason == "content_filter":
        text = ""
    return Answer(str(text).strip(), reason == "stop", int((reply.get("usage") or {}).get("completion_tokens") or 0))
