"""Megatron model providers, attention and the Hugging Face bridge."""
