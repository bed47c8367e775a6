"""What holds of answers that were given up in a loop, whichever generator wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from sdrrl_nemo.data.engines.base import Answer
from sdrrl_nemo.data.engines.generate.in_process import LOOP
from sdrrl_nemo.data.engines.loops import EVERY, SHORTEST_END


def check_given_up(answers: Sequence[Answer], whole: Sequence[Answer], limit: int) -> None:
    """Some of ``answers`` are; what stands before the loop is the same as in ``whole``, which went on to ``limit``."""
    looped = [a for a in answers if a.reason == LOOP]
    assert looped
    assert all(a.tokens >= SHORTEST_END and a.tokens % EVERY == 0 for a in looped)
    for a, b in zip(answers, whole, strict=True):
        assert b.text.startswith(a.text)
        assert a == b or (a.finished is False and a.tokens < b.tokens == limit)
