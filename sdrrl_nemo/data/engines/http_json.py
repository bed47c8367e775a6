"""JSON over HTTP with time-outs and retries; every failure ends in one sentence, none of which shows the key."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from sdrrl_nemo.common.errors import RowError, SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON
from sdrrl_nemo.common.seeding import named_random

if TYPE_CHECKING:
    import httpx  # 0.3 s, which runs and workers that ask no server need not wait for

T = TypeVar("T")
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP states after which the same request may succeed."""
OF_A_ROW = frozenset({400, 413, 422})
"""HTTP states that speak of what was asked, not of who asks or of the server."""
REFUSED = "refused by the server"
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


class JsonClient:
    """GET and POST below ``url``, from any number of threads at once; the bearer key is read from the variable
    ``key_name`` for each request. A redirect would carry the key to another host, so it is an error like any other.
    """

    def __init__(self, url: str, key_name: str = "", retry: Retry | None = None) -> None:
        self._url, self._key_name, self._retry = url, key_name, retry or Retry()
        self._http = self._connections()

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker makes connections of its own: those here, with their TLS context, cannot be copied."""
        return type(self), (self._url, self._key_name, self._retry)

    def _connections(self) -> httpx.Client:
        """As many at once as are asked for, with the certificates of the system as elsewhere in Python.

        A connection is used again within a second only: servers close idle ones, many after five, and a request on its
        way to one just closed would be lost.
        """
        import httpx

        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        try:
            return httpx.Client(
                verify=ssl.create_default_context(),
                timeout=self._retry.timeout_s,
                limits=limits,
                follow_redirects=False,
            )
        except (ImportError, ValueError) as e:  # a SOCKS proxy, or an address that is none
            raise SdrrlError(f"{self._url}: the proxy that the environment names cannot be used ({e})") from None

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
                return _read(self._once(path, body), read)
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

    def _once(self, path: str, body: Any | None) -> httpx.Response:
        import httpx

        key = self._key()
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        method = "GET" if body is None else "POST"
        try:
            reply = self._http.request(method, self._url + path, json=body, headers=headers)
        except httpx.TimeoutException:
            raise _Transient(f"no answer within {self._retry.timeout_s:g} s (timeout_s)") from None
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeError):  # their words may hold the key
            hint = f" and the value of {self._key_name}" if key else ""
            raise SdrrlError(
                f"{self._url}{path}: this holds characters that HTTP has not; check base_url{hint}"
            ) from None
        except (httpx.RequestError, OSError) as e:
            raise _Transient(f"connection failed ({self._hide(str(e)) or type(e).__name__})") from None
        if reply.is_success:
            return reply
        said = f"HTTP {reply.status_code} {self._hide(_message(reply))}".rstrip()
        if reply.status_code in TRANSIENT:
            raise _Transient(said, _retry_after(reply.headers.get("Retry-After")))
        refused = f"{self._url}{path}: the server refused ({said})"
        # These answer what was asked (too long, forbidden content), others who asks: the next row may fare better.
        raise RowError(refused, REFUSED) if body is not None and reply.status_code in OF_A_ROW else SdrrlError(refused)

    def _key(self) -> str:
        return os.environ.get(self._key_name, "") if self._key_name else ""

    def _hide(self, text: str) -> str:
        """Servers repeat a wrong key in their message."""
        key = self._key()
        return text.replace(key, "***") if key else text


def _read(reply: httpx.Response, read: Callable[[Any], T]) -> T:
    try:
        parsed = json.loads(reply.content.decode("utf-8"))
    except BROKEN_JSON as e:
        raise _Transient(f"the reply is not valid JSON ({e})") from None
    try:
        return read(parsed)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as e:
        raise _Transient(f"the reply has not the protocol's form ({type(e).__name__}: {e})") from None


def _message(reply: httpx.Response) -> str:
    """The server's own words, 200 characters at most."""
    try:
        parsed = json.loads(reply.text)
    except BROKEN_JSON:
        return " ".join(reply.text.split())[:200]
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    text = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(text).split())[:200]


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives seconds or a date."""
    if not value:
        return None
    if (seconds := value.strip()).isdecimal():  # strip takes away more than float() lets pass
        return float(seconds)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, ArithmeticError, IndexError):
        return None
