"""Evaluation backends; importing this package registers them (their libraries are imported when one is used)."""

from sdrrl_nemo.eval.backends import local, server, vllm_engine

__all__ = ["local", "server", "vllm_engine"]
