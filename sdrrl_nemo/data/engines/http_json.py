"""JSON over HTTP with time-outs and retries; every failure ends in one sentence, none of which shows the key."""

from __future__ import annotations

import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON
from sdrrl_nemo.common.seeding import named_random

T = TypeVar("T")
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP states after which the same request may succeed."""
LONGEST_WAIT_S = 120.0
"""Bound of one wait between tries, whatever Retry-After asks for."""


@dataclass(frozen=True)
class Retry:
    """``retries`` further tries; before the n-th, ``backoff_s`` * 2^(n-1) seconds, spread by half to both sides."""

    timeout_s: float = 600.0
    retries: int = 6
    backoff_s: float = 1.0


class _Transient(Exception):
    """A failure that may pass; ``after`` is the server's Retry-After in seconds."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, so it is an error like any other state."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class JsonClient:
    """GET and POST below ``url``; the bearer key is read from the variable ``key_name`` for each request."""

    def __init__(self, url: str, key_name: str = "", retry: Retry | None = None) -> None:
        self._url, self._key_name, self._retry = url, key_name, retry or Retry()
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker makes an opener of its own: from Python 3.12 on it holds a TLS context, which cannot be copied."""
        return type(self), (self._url, self._key_name, self._retry)

    def call(
        self,
        path: str,
        body: Any | None,
        names: tuple[object, ...],
        read: Callable[[Any], T],
        stop: threading.Event | None = None,
    ) -> T:
        """``read`` of the reply (POST with a body, else GET). ``names`` seed the spread of the waits.

        A reply that ``read`` cannot make sense of counts as broken and is asked for again. SdrrlError says what
        happened last and how often it was tried; with ``stop`` set nobody waits any longer.
        """
        stop = stop or threading.Event()
        spread = named_random(0, "back-off", path, *names)
        for attempt in range(self._retry.retries + 1):
            try:
                return self._read(self._once(path, body), read)
            except _Transient as e:
                tries = f"{attempt + 1} tr{'ies' if attempt else 'y'}"
                if attempt == self._retry.retries:
                    raise SdrrlError(
                        f"{self._url}{path}: {e} ({tries}); check that it runs and is not overloaded"
                    ) from None
                pause = self._retry.backoff_s * 2**attempt * (0.5 + spread.random())
                pause = min(max(pause, e.after or 0.0), LONGEST_WAIT_S)
                if stop.wait(pause):
                    raise SdrrlError(f"{self._url}{path}: {e} ({tries}); given up, another request failed") from None
        raise AssertionError("unreachable")

    def _once(self, path: str, body: Any | None) -> bytes:
        request = urllib.request.Request(self._url + path, headers={"Accept": "application/json"})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if key := self._key():
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with self._opener.open(request, timeout=self._retry.timeout_s) as reply:
                return bytes(reply.read())
        except urllib.error.HTTPError as e:
            said = f"HTTP {e.code} {self._hide(_message(e))}".rstrip()
            if e.code in TRANSIENT:
                raise _Transient(said, _retry_after(e.headers.get("Retry-After"))) from None
            raise SdrrlError(f"{self._url}{path}: the server refused ({said})") from None
        except TimeoutError:
            raise _Transient(f"no answer within {self._retry.timeout_s:g} s (timeout_s)") from None
        except UnicodeError:
            raise SdrrlError(
                f"{self._url}{path}: the address, or the key in {self._key_name or 'the environment'}, holds "
                "characters that HTTP has not"
            ) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
            reason = getattr(e, "reason", None) or e
            if isinstance(reason, TimeoutError):
                raise _Transient(f"no answer within {self._retry.timeout_s:g} s (timeout_s)") from None
            raise _Transient(f"connection failed ({self._hide(str(reason)) or type(reason).__name__})") from None

    def _key(self) -> str:
        return os.environ.get(self._key_name, "") if self._key_name else ""

    def _hide(self, text: str) -> str:
        """Servers repeat a wrong key in their message."""
        key = self._key()
        return text.replace(key, "***") if key else text

    @staticmethod
    def _read(raw: bytes, read: Callable[[Any], T]) -> T:
        try:
            reply = json.loads(raw.decode("utf-8"))
        except BROKEN_JSON as e:
            raise _Transient(f"the reply is not valid JSON ({e})") from None
        try:
            return read(reply)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as e:
            raise _Transient(f"the reply has not the protocol's form ({type(e).__name__}: {e})") from None


def _message(error: urllib.error.HTTPError) -> str:
    """The server's own words, 200 characters at most."""
    try:
        raw = error.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        parsed = json.loads(raw)
    except BROKEN_JSON:
        return " ".join(raw.split())[:200]
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    text = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(text).split())[:200]


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives seconds or a date."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, ArithmeticError, IndexError):
        return None
