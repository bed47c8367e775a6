"""transformers in this process: CPU or one GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from sdrrl_nemo.eval.backends.answer_loss import sample_losses
from sdrrl_nemo.eval.backends.decoding import greedy
from sdrrl_nemo.eval.backends.interface import BACKENDS, Advance, Backend, Encoded, check_lengths
from sdrrl_nemo.eval.backends.last_states import last_states
from sdrrl_nemo.eval.backends.likelihood import choice_log_likelihoods
from sdrrl_nemo.eval.config import BenchmarkConfig, EvalConfig
from sdrrl_nemo.eval.model_folder import ModelFolder, choose_device, load_model

REVISION = 4
"""Changes whenever the code here may give another output for the same request."""


@BACKENDS.register("transformers")
class TransformersBackend(Backend):
    """In fp32 no batch and no order changes a score; in half precision the batch is part of the identity."""

    def __init__(self, folder: ModelFolder, config: EvalConfig | BenchmarkConfig) -> None:
        super().__init__(folder, config)
        transformers.logging.set_verbosity_error()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)
        self._loaded: tuple[str, Any] | None = None

    def together(self, batch_size: int) -> bool:
        """Of the held-out evaluation, which says how many rows to take, and on a GPU."""
        return batch_size > 0 or self.device.type == "cuda"

    def identity(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "backend": "transformers",
            "revision": REVISION,
            "device": self.device.type,
            "dtype": self.dtype,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if self.batch_size:
            found["batch_size"] = self.batch_size
        elif self.dtype != "float32":
            found["batch_tokens"] = self.config.batch_tokens
        if self.together(self.batch_size) and (self.batch_size or self.dtype != "float32"):
            found["together"] = True  # what is in a batch then depends on the tasks, and rounding on the batch
        return found

    @property
    def model(self) -> Any:
        """Loaded when the first output is missing. Weights go down in precision in place, and never up again: the
        evaluation asks its fp32 tasks first, so each model is read and converted once."""
        if self._loaded is None or self._loaded[0] not in ("float32", self.dtype):
            self._loaded = "float32", load_model(self.folder, self.device)
        if self._loaded[0] != self.dtype:
            self._loaded = self.dtype, self._loaded[1].to(getattr(torch, self.dtype))
        return self._loaded[1]

    def prepare(self) -> None:
        assert self.model is not None

    def generate(self, prompts: Sequence[Sequence[int]], limits: Sequence[int], advance: Advance) -> list[Any]:
        tokens, rows = self.config.batch_tokens, self.batch_size
        return greedy(self.model, self.folder.tokenizer, prompts, limits, tokens, advance, rows)

    def choose(
        self, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], advance: Advance
    ) -> list[list[float]]:
        return choice_log_likelihoods(self.model, contexts, choices, self.config.batch_tokens, advance)

    def states(self, prompts: Sequence[Sequence[int]], advance: Advance) -> list[Any]:
        step = self._checked([len(p) for p in prompts], advance, "prompts")
        return list(last_states(self.model, prompts, self.config.batch_tokens, step))

    def losses(self, samples: Sequence[Encoded], advance: Advance) -> list[Any]:
        step = self._checked([len(s.tokens) for s in samples], advance, "questions and their answers")
        found = sample_losses(self.model, samples, self.config.batch_tokens, step)
        return [dataclasses.asdict(x) for x in found]

    def _checked(self, lengths: Sequence[int], advance: Advance, what: str) -> Advance:
        """``advance`` in texts for a function that counts tokens; SdrrlError for a text longer than the model."""
        check_lengths(lengths, self.folder.positions, what)
        scale = len(lengths) / sum(lengths)
        return lambda n: advance(n * scale)
