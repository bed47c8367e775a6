"""Silence the import-time chatter of NeMo, Megatron and their helpers; warnings of our own and all errors stay.

Call ``quiet_third_parties()`` before the first import of ``nemo`` or ``megatron``.
With ``SDRRL_VERBOSE=1`` in the environment nothing is silenced.
"""

from __future__ import annotations

import logging
import os
import warnings

# Whole families: a child logger without a level of its own takes its parent's.
LOGGERS = (
    "lightning",
    "lightning.pytorch",
    "megatron",
    "modelopt",
    "NeMo",
    "nemo",
    "nv_one_logger",
    "pytorch_lightning",
)
# These set their own level at import; a filter outlives that.
FILTERED = (
    "nemo_logger",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.utilities.rank_zero",
    "pytorch_lightning.utilities.rank_zero",
)
# (message, module) of warnings that say "no GPU extension here" or concern library internals.
WARNINGS = (
    (r".*(Transformer Engine|Apex|apex).*not installed", ""),
    (r"Failed to create unified memory mempool", ""),
    (r"'pin_memory' argument is set as true but no accelerator", ""),
    (r"transformers version .* is incompatible with nvidia-modelopt", ""),
    (r"You called `self\.log\('.*', \.\.\.\)` in your `training_step` but the value needs to be floating", ""),
    (
        r"",
        r"(megatron|nemo|modelopt|lightning|pytorch_lightning|nv_one_logger|hydra|torchmetrics)\.",
    ),
)
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def errors_only(record: logging.LogRecord) -> bool:
    """Logging filter: only errors pass."""
    return record.levelno >= logging.ERROR


def quiet_third_parties() -> None:
    """Loggers to ERROR, known warnings off, environment defaults set (what the user has set stays)."""
    if os.environ.get("SDRRL_VERBOSE", "0") not in ("", "0"):
        return
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in FILTERED:
        logging.getLogger(name).addFilter(errors_only)  # adding it twice keeps one
    for message, module in WARNINGS:
        warnings.filterwarnings("ignore", message=message, module=module)
