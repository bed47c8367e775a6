"""Backend ``ctranslate2``: the answers of backend ``transformers``, whatever CTranslate2 says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.ctranslate2_decoder import CTranslate2Decoder
from sdrrl_nemo.eval.backends.interface import BACKENDS
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.model_folder import open_model_folder


def nothing(done: float) -> None:
    """Progress nobody watches."""


@pytest.mark.parametrize("spoil", [False, True])
def test_ctranslate2_gives_what_the_local_backend_gives(
    base_folder: Path, tmp_path: Path, spoil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where CTranslate2 says something else: every answer is read by transformers and rewritten if need be."""
    texts = ["Why?", "Say hello to the sea.", "What is 7 times 6?", "Name a bird " * 9]
    limits = [8, 20, 8, 20]
    folder, config = open_model_folder("model", base_folder), BenchmarkConfig(device="cpu")
    here = BACKENDS.create("transformers", folder=folder, config=config)
    there = BACKENDS.create("ctranslate2", folder=folder, config=config, cache=str(tmp_path))
    prompts = [here.encode(text, True) for text in texts]
    if spoil:
        kept = CTranslate2Decoder.generate
        wrong = lambda *a, **k: ([[5, *row[1:]] for row in rows] for rows in kept(*a, **k))  # noqa: E731
        monkeypatch.setattr(CTranslate2Decoder, "generate", wrong)
    assert there.generate(prompts, limits, nothing) == here.generate(prompts, limits, nothing)
    assert (there.rewritten == len(texts)) is spoil
    assert there.identity() != here.identity()
    there.adopt("bfloat16", 4)
    with pytest.raises(SdrrlError, match="answers in float32 alone and bfloat16 is asked for"):
        there.generate(prompts, limits, nothing)
