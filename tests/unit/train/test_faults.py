"""What goes wrong around a run ends in one sentence, also where torch raises what is no Exception."""

from __future__ import annotations

import errno

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.train.faults import one_sentence


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (full(), "RUN: no room to write"),
        (CheckpointException("write", {1: (full(), None)}), "RUN: no room to write"),  # type: ignore[dict-item]
        (CheckpointException("write", {}), "RUN: another process of this run could not write its part"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
            "RUN: no room to write",
        ),
        (RuntimeError("Connection closed by peer [127.0.0.1]"), "RUN: another process of this run ended"),
    ],
)
def test_known_faults(error: BaseException, sentence: str) -> None:
    with pytest.raises(SdrrlError, match=sentence), one_sentence("RUN"):
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_everything_else_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)), one_sentence("RUN"):
        raise error
