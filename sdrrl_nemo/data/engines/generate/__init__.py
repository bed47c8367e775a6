"""Engines that answer questions: y_hat = M(x)."""

from sdrrl_nemo.data.engines.generate import hf, nemo_checkpoint, openai_server

__all__ = ["hf", "nemo_checkpoint", "openai_server"]
