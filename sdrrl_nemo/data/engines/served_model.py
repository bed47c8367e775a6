"""A model behind a server that speaks the OpenAI protocol (vLLM, SGLang): checked options, requests side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.data.engines.http_json import JsonClient, Retry

FIRST_TRY = Retry(timeout_s=5.0, retries=0)
"""Before a run a server that is down is to be heard of at once."""
A = TypeVar("A")
B = TypeVar("B")


def fields_of(extra: Mapping[str, Any] | None, reserved: Collection[str], where: str) -> dict[str, Any]:
    """What an engine's ``extra`` adds to each request's body; SdrrlError, which begins with ``where``, for a field that
    is ``reserved``."""
    found = dict(extra or {})
    if taken := sorted(set(found) & set(reserved)):
        raise SdrrlError(f"{where}: extra.{taken[0]} has an option of its own or cannot be set")
    return found


class ServedModel:
    """``concurrency`` requests at a time to the server at ``base_url``, which must serve ``model``.

    The key is read from the environment variable named ``api_key_env`` when a request is made; it is never kept,
    logged or shown. Nothing is asked before the first request. SdrrlError, which begins with ``where``, for options
    that cannot be meant.
    """

    def __init__(
        self,
        where: str,
        model: str,
        base_url: str,
        concurrency: int,
        retry: Retry,
        api_key_env: str,
    ) -> None:
        try:
            parts = urlsplit(base_url)
            named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # half an IPv6 address, a port that is no number
            named = False
        if not named:
            raise SdrrlError(f"{where}: base_url '{base_url}' is no http(s) address such as http://host:8000/v1")
        if parts.username:
            raise SdrrlError(f"{where}: base_url holds credentials; name the variable with the key in api_key_env")
        if concurrency < 1 or min(retry.retries, retry.backoff_s) < 0 or retry.timeout_s <= 0:
            raise SdrrlError(f"{where}: concurrency >= 1, timeout_s > 0, retries and backoff_s >= 0 are needed")
        self.where, self.name, self.url = where, model, base_url.rstrip("/")
        self._concurrency, self._retry, self._key_name = concurrency, retry, api_key_env

    @cached_property
    def client(self) -> JsonClient:
        """Connection settings, made once the server has said that it serves the model."""
        return self._connected(self._retry)

    def try_out(self) -> None:
        """SdrrlError when the server does not answer at once, or does not serve the model."""
        self._connected(FIRST_TRY)

    def _connected(self, retry: Retry) -> JsonClient:
        if self._key_name and not os.environ.get(self._key_name):
            raise SdrrlError(f"{self.where}: the environment variable {self._key_name} is not set")
        asked = JsonClient(self.url, self._key_name, retry)
        served = asked.call("/models", None, ("models",), lambda reply: [str(m["id"]) for m in reply["data"]])
        if self.name not in served:
            raise SdrrlError(f"{self.url}: the server does not serve model '{self.name}'{suggest(self.name, served)}")
        return asked

    def side_by_side(self, items: Sequence[A], ask: Callable[[JsonClient, int, A, threading.Event], B]) -> list[B]:
        """``ask(client, position, item, stop)`` of all in order; the first failure sets ``stop`` and is raised."""
        if not items:
            return []
        client, stop = self.client, threading.Event()
        pool = ThreadPoolExecutor(min(self._concurrency, len(items)))
        futures = [pool.submit(ask, client, n, item, stop) for n, item in enumerate(items)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after a failure nobody waits for requests that no longer matter
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        for future in futures:
            if future in done and (error := future.exception()):
                raise error
        return [future.result() for future in futures]
