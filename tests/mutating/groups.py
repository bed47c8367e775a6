"""Which unit tests belong to which file, and which of those are left out for their time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Group:
    """``tests``: patterns; ``slow``: parts of test names that take minutes and repeat, larger, what others ask."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()

    def files_in(self, root: Path) -> list[str]:
        return _found(root, self.files)

    def tests_in(self, root: Path) -> list[str]:
        return _found(root, self.tests)


def _found(root: Path, patterns: tuple[str, ...]) -> list[str]:
    paths = {str(p.relative_to(root)) for pattern in patterns for p in root.glob(pattern)}
    return sorted(p for p in paths if not p.endswith("__init__.py"))


SLOW_KERNELS = (
    "test_compiled_torch",
    "test_liger_small_sizes",
    "test_quack_sizes_triton",
    "test_kernel_tools",
    "test_liger_linear",
    *("128256", "64000", "49152"),  # rows of 32003 columns are read in pieces too
)

FIRST = (
    Group(("kernels/sdrrl_kernels/*.py",), ("tests/unit/kernels/test_*.py",), SLOW_KERNELS),
    Group(("sdrrl_nemo/train/batches.py",), ("tests/unit/train/test_batches*.py",)),
    Group(("sdrrl_nemo/train/loss.py",), ("tests/unit/train/test_loss*.py",)),
    Group(
        ("sdrrl_nemo/data/packing/packed.py",),
        (
            "tests/unit/train/test_packed*.py",
            "tests/unit/train/test_batches.py",
            "tests/unit/data/packing/test_megatron_files.py",
        ),
    ),
    Group(("sdrrl_nemo/data/packing/best_fit.py",), ("tests/unit/data/packing/test_packing*.py",)),
    Group(
        ("sdrrl_nemo/data/text/templates.py",),
        ("tests/unit/data/text/test_templates*.py", "tests/unit/data/stages/test_codeswitch.py"),
    ),
    Group(("sdrrl_nemo/data/stages/code_switch.py",), ("tests/unit/data/stages/test_codeswitch*.py",)),
    *(
        Group((f"sdrrl_nemo/eval/scorers/{name}.py",), (f"tests/unit/eval/test_scorers_{name}*.py",))
        for name in ("belebele", "bleu", "comet", "mkqa", "rouge")
    ),
)
SECOND = (
    Group(("sdrrl_nemo/data/methods.py",), ("tests/unit/data/test_methods*.py", "tests/unit/data/test_configs.py")),
    Group(("sdrrl_nemo/data/filters/*.py",), ("tests/unit/data/filters/test_filters*.py",)),
    Group(("sdrrl_nemo/data/text/tokenizer.py",), ("tests/unit/data/text/test_tokenization*.py",)),
    Group(
        ("sdrrl_nemo/train/schedule.py",),
        ("tests/unit/train/test_schedule*.py", "tests/unit/train/test_guard_and_heldout.py"),
    ),
)
GROUPS = {"first": FIRST, "second": SECOND}
