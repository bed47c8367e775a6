"""What a reader may do with damaged input: give a result, or one SdrrlError of one line that names the file."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sdrrl_nemo.common.errors import SdrrlError

TOTAL = int(os.environ.get("FUZZ_INPUTS", "2000"))
"""Inputs of all tests in this folder together; ``make fuzz`` asks for 100,000."""
SECONDS = 20
"""A reader that takes longer for a file of a few kilobytes hangs."""
STARVED = 6
"""So many times longer where the machine gave the reader little of its time meanwhile."""
DONE: Counter[str] = Counter()
"""Inputs run so far, by reader and by how they ended."""


class Hang(BaseException):
    """Raised by the alarm; no reader may catch it."""


def share(part: float) -> settings:
    """Settings of a test that takes ``part`` of all inputs."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=max(5, round(TOTAL * part)), deadline=None, suppress_health_check=unhealthy)


@contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
    """Fail after ``seconds``; pytest's own alarm is put back afterwards."""
    began, used = time.monotonic(), time.process_time()

    def ring(number: int, frame: FrameType | None) -> None:
        if time.process_time() - used < seconds / 2 and time.monotonic() - began < STARVED * seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            raise Hang(f"no result after {time.monotonic() - began:.0f} s")

    handler = signal.signal(signal.SIGALRM, ring)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Hang as e:
        pytest.fail(str(e), pytrace=False)  # pytest cannot print a trace as deep as some readers are then
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, handler)


def only_sdrrl_error(path: Path, call: Callable[[], Any], reader: str = "") -> str | None:
    """Run ``call``; the error's line, or None where there was a result. Any other exception fails the test."""
    try:
        with deadline():
            call()
    except SdrrlError as e:
        said = str(e)
        assert len(said.splitlines()) == 1, f"more than one line: {said!r}"
        assert path.name in said or path.stem in said, f"does not name {path.name}: {said}"
        DONE[f"{reader or path.name}, refused"] += 1
        return said
    DONE[f"{reader or path.name}, read"] += 1
    return None


TROUBLE = (
    b"", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xe9", b"\\ud800", b'"\\udfff"', b"9" * 5000,
    b"1e999", b"NaN", b"-1", b"[" * 5000, b'{"a":' * 3000, b"<hi>" * 3000, b"\r\n", b"\n", b"\xe2\x80\xa8", b"\xc2\x85",
    b"\t", b'"', b"&#0;", b"&a;", b"${a}", b"${", b": ", b"- ", b"*x", b"&x ", b"!!int x", b"2024-99-99", b"null",
    b"[]", b"{}", b"true", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x00" * 8,
)  # fmt: skip
"""Pieces that readers stumble over: marks, halves of surrogate pairs, huge numbers, deep nesting, ends of lines."""
OPERATIONS = ("flip", "cut", "insert", "replace", "repeat", "truncate", "recode")
CHANGE = st.tuples(
    st.sampled_from(OPERATIONS), st.integers(0, 2**20), st.integers(0, 2**20), st.sampled_from(TROUBLE) | st.binary()
)


def mutate(valid: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """``valid`` with each change (operation, two numbers that give places, a piece to put in) made to it in turn."""
    data = valid
    for operation, first, second, piece in changes:
        at = first % (len(data) + 1)
        end = min(len(data), at + second % 64)
        if operation == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << second % 8]) + data[at + 1 :]
        elif operation == "cut":
            data = data[:at] + data[end:]
        elif operation == "insert":
            data = data[:at] + piece + data[at:]
        elif operation == "replace":
            data = data[:at] + piece + data[end:]
        elif operation == "repeat":
            data = data[:at] + data[at:end] * (1 + second % 5) + data[end:]
        elif operation == "truncate":
            data = data[:at]
        elif operation == "recode":
            data = data.decode("utf-8", "replace").encode(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")[second % 4])
    return data[: 1 << 17]


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that are like a valid file, or like nothing."""
    near = st.lists(CHANGE, min_size=1, max_size=5).map(lambda changes: mutate(valid, changes))
    return st.one_of(near, near, near, st.binary(max_size=300), st.text(max_size=100).map(lambda t: t.encode()))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(codec=None), max_size=12),
    st.sampled_from(["", "user", "assistant", "a\nb", "\ud800", "${x}", "${oc.env:HOME}", "???", "\x1b[31m"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""Any value that JSON and YAML can say, and halves of surrogate pairs."""
