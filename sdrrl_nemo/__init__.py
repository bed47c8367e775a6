"""SDRRL on Megatron/NeMo: multilingual self-distillation as a training recipe."""

__version__ = "0.1.0"
