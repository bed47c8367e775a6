"""Evaluation backends; importing this package registers them (their libraries are imported when one is used)."""

from sdrrl_nemo.eval.backends import checked, local, server, vllm_engine

__all__ = ["checked", "local", "server", "vllm_engine"]
