"""transformers in this process: CPU or one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import transformers

from sdrrl_nemo.eval.backends.decoding import greedy
from sdrrl_nemo.eval.backends.interface import BACKENDS, Advance, Backend
from sdrrl_nemo.eval.backends.last_states import last_states
from sdrrl_nemo.eval.backends.likelihood import choice_log_likelihoods
from sdrrl_nemo.eval.benchmark_config import BenchmarkConfig
from sdrrl_nemo.eval.encoding import check_lengths
from sdrrl_nemo.eval.model_folder import ModelFolder, choose_device, load_model

REVISION = 1
"""Changes whenever the code here may give another output for the same request."""


@BACKENDS.register("transformers")
class TransformersBackend(Backend):
    """In fp32 no batch and no order changes a score; in half precision ``batch_tokens`` is part of the identity."""

    def __init__(self, folder: ModelFolder, config: BenchmarkConfig) -> None:
        super().__init__(folder, config)
        transformers.logging.set_verbosity_error()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)

    def identity(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "backend": "transformers",
            "revision": REVISION,
            "device": self.device.type,
            "dtype": self.config.dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if self.config.dtype != "float32":
            found["batch_tokens"] = self.config.batch_tokens
        return found

    @cached_property
    def model(self) -> Any:
        """Loaded when the first output is missing."""
        return load_model(self.folder, self.device).to(getattr(torch, self.config.dtype))

    def prepare(self) -> None:
        assert self.model is not None

    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        return greedy(self.model, self.folder.tokenizer, prompts, limits, self.config.batch_tokens, advance)

    def choose(
        self, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], advance: Advance
    ) -> list[list[float]]:
        return choice_log_likelihoods(self.model, contexts, choices, self.config.batch_tokens, advance)

    def states(self, prompts: Sequence[Sequence[int]], advance: Advance) -> list[Any]:
        check_lengths(
            [len(p) for p in prompts], getattr(self.model.config, "max_position_embeddings", None), "instructions"
        )
        total = sum(len(p) for p in prompts)
        scale = len(prompts) / total
        found = last_states(self.model, prompts, self.config.batch_tokens, lambda n: advance(n * scale))
        return list(found)
