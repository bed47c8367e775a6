"""How many inputs were run, written to the file that FUZZ_REPORT names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

BEGAN = time.process_time(), time.monotonic()


@pytest.fixture(scope="session", autouse=True)
def libraries() -> None:
    """What readers import on first use takes longer than any of them may."""
    import transformers.models.llama.configuration_llama  # noqa: F401 - what config.json asks for

    import sdrrl_nemo.data.packing.packed
    import sdrrl_nemo.model.gguf
    import sdrrl_nemo.model.provider  # noqa: F401


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the counts and the seconds."""
    if name := os.environ.get("FUZZ_REPORT"):
        from tests.fuzz.harness import DONE, TOTAL

        facts = {
            "asked": TOTAL,
            "inputs": sum(DONE.values()),
            "by_reader": dict(sorted(DONE.items())),
            "failed_tests": session.testsfailed,
            "cpu_seconds": round(time.process_time() - BEGAN[0], 1),
            "seconds": round(time.monotonic() - BEGAN[1], 1),
        }
        Path(name).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
