"""One file a benchmark; importing this package registers them all."""

from sdrrl_nemo.eval.benchmarks.suites import belebele, flores, instructions, mkqa, xlsum

__all__ = ["belebele", "flores", "instructions", "mkqa", "xlsum"]
