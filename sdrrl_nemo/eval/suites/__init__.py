"""One file for each thing measured; importing this package registers them all."""

from sdrrl_nemo.eval.suites import (
    alignment,
    belebele,
    flores,
    held_out_loss,
    held_out_translation,
    mkqa,
    off_target,
    xlsum,
)

__all__ = [
    "alignment", "belebele", "flores", "held_out_loss", "held_out_translation", "mkqa", "off_target", "xlsum",
]  # fmt: skip
