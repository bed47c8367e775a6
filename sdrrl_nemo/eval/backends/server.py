"""A vLLM (or other) server that speaks the OpenAI completions protocol and takes token ids as prompts.

    vllm serve <folder> --served-model-name <name> --max-logprobs 5

Tokenisation happens here with the folder's own tokenizer, so a server sees the token ids that the local backend would.
Log-likelihoods come from ``echo`` with ``logprobs``, as lm-evaluation-harness's local-completions asks for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.http_json import JsonClient, Retry
from sdrrl_nemo.data.engines.served_model import ServedModel
from sdrrl_nemo.eval.backends.interface import BACKENDS, Advance, Backend
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.model_folder import ModelFolder

REVISION = 2
T = TypeVar("T")


@BACKENDS.register("openai_server")
class ServerBackend(Backend):
    """``model`` is the served name; ``revision`` says which weights and settings the server runs and is part of the
    identity, since a server cannot be asked. At temperature 0 the server's own batching may still decide close calls.
    """

    def __init__(
        self,
        folder: ModelFolder,
        config: BenchmarkConfig,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        revision: str = "",
        concurrency: int = 32,
        timeout_s: float = 600.0,
        retries: int = 6,
        backoff_s: float = 1.0,
        api_key_env: str = "",
    ) -> None:
        super().__init__(folder, config)
        self.revision = revision
        retry = Retry(timeout_s=timeout_s, retries=retries, backoff_s=backoff_s)
        self._served = ServedModel("backend 'openai_server'", model, base_url, concurrency, retry, api_key_env)

    def identity(self) -> dict[str, Any]:
        return {
            "backend": "openai_server",
            "revision": REVISION,
            "model": self._served.name,
            "server": self.revision or "unstated",
        }

    def _all(
        self, bodies: Sequence[dict[str, Any]], read: Callable[[Any], T], advance: Callable[[], object]
    ) -> list[T]:
        """Replies in order; the first failure ends all."""

        def one(client: JsonClient, number: int, body: dict[str, Any], stop: threading.Event) -> T:
            reply = client.call("/completions", {"model": self._served.name, **body}, (number,), read, stop)
            advance()
            return reply

        return self._served.side_by_side(bodies, one)

    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        bodies = [
            {"prompt": list(p), "max_tokens": n, "temperature": 0.0, "stop_token_ids": self.folder.end_token_ids}
            for p, n in zip(prompts, limits, strict=True)
        ]
        return self._all(bodies, _read_text, lambda: advance(1))

    def choose(
        self, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], advance: Advance
    ) -> list[list[float]]:
        bodies, lengths = [], []
        for context, options in zip(contexts, choices, strict=True):
            for choice in options:
                ids = [*context, *choice]
                bodies.append({"prompt": ids, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1})
                lengths.append((len(context), len(ids)))
        per_choice = len(contexts) / len(bodies)
        found = self._all(bodies, _read_log_probabilities, lambda: advance(per_choice))
        flat = []
        for values, (start, end) in zip(found, lengths, strict=True):
            part = values[start:end]
            if len(part) < end - start or any(v is None for v in part):
                raise SdrrlError(
                    f"{self._served.url}: the server gave {len(values)} log-probabilities for a prompt of {end} "
                    "tokens; it must support echo with logprobs (vLLM does)"
                )
            flat.append(float(sum(v for v in part if v is not None)))
        out, at = [], 0
        for options in choices:
            out.append(flat[at : at + len(options)])
            at += len(options)
        return out


def _read_text(reply: Any) -> dict[str, Any]:
    choice = reply["choices"][0]
    tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
    return {"text": str(choice["text"]).strip(), "tokens": tokens, "finished": choice.get("finish_reason") == "stop"}


def _read_log_probabilities(reply: Any) -> list[float | None]:
    return [None if v is None else float(v) for v in reply["choices"][0]["logprobs"]["token_logprobs"]]
