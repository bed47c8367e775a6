"""``sdrrl SUBCOMMAND ...``: finds the tool, gives it the arguments as they are, returns its exit code.

Nothing is imported but what the subcommand itself imports; ``sdrrl --help`` imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sdrrl_nemo import __version__
from sdrrl_nemo.cli.loading import load
from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError, suggest


@dataclass(frozen=True)
class Command:
    """One subcommand: the script it is, and what it is for in one line."""

    script: str
    line: str


COMMANDS = {
    "doctor": Command("tools/doctor.py", "what is installed here, what will run and what will not"),
    "import-gguf": Command("tools/import_gguf.py", "GGUF file, or a package that ships one, to a Hugging Face folder"),
    "preprocess": Command("tools/preprocess_sdrrl.py", "instruction set to packed transfer set, with its data card"),
    "train": Command("recipes/sdrrl_pretrain.py", "train on a packed set, on all GPUs or on the CPU (torchrun inside)"),
    "export": Command("tools/export_hf.py", "a run's newest checkpoint to a Hugging Face folder, logits compared"),
    "evaluate": Command("tools/evaluate.py", "base against trained, or any models on the benchmarks"),
    "study": Command("tools/study.py", "several methods from one base on one budget: tables and a page"),
    "plan": Command("tools/plan.py", "memory, tokens a second, hours and the best layout, before a run"),
    "launch": Command("tools/launch_nemo_run.py", "start training on a cluster through NeMo-Run"),
    "expand-vocab": Command("tools/expand_vocab.py", "give a model tokens of the target language"),
    "import-hf": Command("tools/import_hf.py", "Hugging Face folder to a Megatron checkpoint, for other tools"),
    "data-card": Command("tools/docs/data_card.py", "write the card of a finished transfer set again"),
    "measure-quality": Command(
        "tools/bench/measure_quality.py", "what filters and estimators make of right and wrong texts"
    ),
    "languages": Command("tools/docs/languages.py", "the table of languages, and what each engine has for them"),
    "comet-env": Command("tools/make_comet_env.py", "make the environment that COMET runs in"),
}


def usage() -> str:
    """What ``sdrrl --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.line}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sdrrl SUBCOMMAND ...",
            "",
            "Multilingual self-distillation (SDRRL) on Megatron and NeMo.",
            "",
            *lines,
            "",
            "'sdrrl SUBCOMMAND --help' says what it takes; 'sdrrl --version' the version.",
        ]
    )


def dispatch(argv: Sequence[str]) -> int:
    """Run the subcommand ``argv[0]`` with the rest; SdrrlError for one that does not exist."""
    if not argv:
        print(usage(), file=sys.stderr)
        return 2
    first, rest = argv[0], list(argv[1:])
    if first in ("-h", "--help", "help"):
        print(usage())
        return 0
    if first in ("-V", "--version"):
        print(f"sdrrl {__version__}")
        return 0
    if first not in COMMANDS:
        raise SdrrlError(f"'{first}' is no subcommand of sdrrl{suggest(first, COMMANDS)}")
    sys.argv = [f"sdrrl {first}", *rest]  # argparse takes the program's name from here, and so does provenance
    try:
        return call(first, rest)
    except ModuleNotFoundError as e:
        if str(e.name).split(".")[0] in ("sdrrl_nemo", "sdrrl_kernels"):
            raise
        raise SdrrlError(
            f"sdrrl {first} needs the package '{e.name}', which is not installed here; install the project with what "
            "it depends on (docs/versions.md)"
        ) from e


def call(name: str, arguments: Sequence[str]) -> int:
    """The tool's exit code."""
    script = COMMANDS[name].script
    if name == "train":
        from sdrrl_nemo.cli.train import train

        return train(arguments, script)
    result: int | None = load(script).main(arguments)
    return result or 0


def main() -> int:
    """Entry point of the console script."""
    return run(dispatch)
