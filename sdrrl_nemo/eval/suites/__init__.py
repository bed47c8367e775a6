"""One file a benchmark; importing this package registers them all."""

from sdrrl_nemo.eval.suites import belebele, flores, mkqa, off_target, xlsum

__all__ = ["belebele", "flores", "mkqa", "off_target", "xlsum"]
