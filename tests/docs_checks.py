"""Checks one command of the documents: does each thing that it names exist, would its options be taken?"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from sdrrl_nemo.cli.main import COMMANDS
from sdrrl_nemo.cli.train import split
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from tests.docs_commands import ROOT, SCRIPT, simple_commands

PLACEHOLDER = re.compile(r"…|\.\.\.|<[^>]+>|key=value|^[A-Z][A-Z_]*$|^YOUR\.yaml$|^measure/…$")
"""A word that stands for something else: FILE, N, ``...``."""
CONFIGURED = {
    "tools/preprocess_sdrrl.py": "data",
    "tools/bench/measure_quality.py": "data",
    "recipes/sdrrl_pretrain.py": "run",
    "tools/plan.py": "run",
    "tools/evaluate.py": "eval",
    "tools/study.py": "study",
    "tools/launch_nemo_run.py": "launch",
}
"""Script -> whose configuration its ``--config`` names."""
EXTERNAL = {
    "git": "fetches the repository, whose address is not in it",
    "cd": "of the shell",
    "source": "of the shell",
    "docker": "needs a container engine",
    "enroot": "needs a container engine",
    "sbatch": "needs Slurm",
    "sky": "needs a cloud",
    "tensorboard": "serves until it is stopped",
    "tail": "of the system",
    "grep": "of the system",
    "npm": "of the system",
    "tar": "of the system",
    "apt-get": "of the system",
    "chromium": "of the system",
    "huggingface-cli": "downloads from a hub, after a licence is accepted",
    "lm_eval": "a package of its own, in an environment of its own",
    "pipx": "asks a database of vulnerabilities",
    "pre-commit": "writes into .git",
}
"""Programs that are checked by name only, why, and by the paths of the checkout that they are given."""
TORCHRUN_OPTIONS = {"--nproc-per-node", "--nnodes", "--node-rank", "--rdzv-endpoint", "--rdzv-backend", "--rdzv-id"}


class WrongCommand(AssertionError):
    """A command of a document that would not do what it says."""


def need(holds: object, message: str) -> None:
    """Raise WrongCommand unless ``holds``."""
    if not holds:
        raise WrongCommand(message)


def check_line(line: str, whole: bool) -> None:
    """Check all commands of a shell line; ``whole``: it is printed to be run, so nothing required may be missing."""
    commands = simple_commands(line)
    need(commands, f"no command in '{line}'")
    for words in commands:
        check(words, whole)


def check(words: Sequence[str], whole: bool) -> None:
    """Check one simple command."""
    program, rest = words[0], list(words[1:])
    name = Path(program).name if program.startswith(".venv") else program
    if SCRIPT.fullmatch(program):
        check_script(program, rest, whole, direct=True)
    elif name == "sdrrl":
        check_sdrrl(rest, whole)
    elif name == "make":
        check_make(rest)
    elif re.fullmatch(r"python(3(\.\d+)?)?", name):
        check_python(rest, whole)
    elif name == "torchrun":
        at = next((i for i, word in enumerate(rest) if SCRIPT.fullmatch(word)), None)
        need(at is not None, f"torchrun starts no script: {rest}")
        options = [w for w in rest[:at] if w.startswith("-")]
        need(set(options) <= TORCHRUN_OPTIONS, f"torchrun: unknown option among {options}")
        check_script(rest[at], rest[at + 1 :], whole, direct=False)
    elif name == "pip":
        check_pip(rest)
    elif name == "pytest":
        check_pytest(rest)
    else:
        need(name in EXTERNAL, f"'{name}' is no known kind of command; add it to tests/docs_checks.py or mend the text")
        check_paths(rest)


def check_paths(words: Sequence[str]) -> None:
    """Words that name a file of the checkout name one that exists."""
    for word in words:
        if re.match(r"(configs|tools|recipes|docs|tests|requirements|data)/", word) and "=" not in word:
            made = word.startswith(("data/alpaca", "data/muse", "data/opus"))
            need(made or (ROOT / word).exists(), f"{word}: no such file")


def check_make(words: Sequence[str]) -> None:
    """Targets have a rule, variables are used."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*)(?= *[\w .-]*:(?!=))", text, re.MULTILINE))
    targets |= {t for line in re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE) for t in line.split()}
    for word in words:
        variable, equals, _ = word.partition("=")
        known = f"$({variable})" in text if equals else word in targets
        need(known, f"make: the Makefile has no {'variable' if equals else 'target'} '{variable}'")


def check_sdrrl(words: Sequence[str], whole: bool) -> None:
    """The subcommand exists and takes what follows."""
    need(words, "sdrrl: no subcommand")
    if words[0] in ("--help", "--version"):
        return
    need(words[0] in COMMANDS, f"sdrrl has no subcommand '{words[0]}'")
    rest = list(words[1:])
    if words[0] == "train":
        options, rest = split(rest)
        named = {word.partition("=")[0] for word in options if word.startswith("--")}
        need(named <= TORCHRUN_OPTIONS, f"sdrrl train: unknown torchrun options in {options}")
    check_script(COMMANDS[words[0]].script, rest, whole, direct=False)


def check_python(words: Sequence[str], whole: bool) -> None:
    """A script, a module of the project, or code."""
    need(words, "python without anything")
    if words[0] == "-c":
        check_code(words[1])
    elif words[0] == "-m":
        if words[1] in ("pip", "venv", "pytest"):
            return
        path = words[1].replace(".", "/") + ".py"
        check_script(path, words[2:], whole, direct=False)
    else:
        check_script(words[0], words[1:], whole, direct=False)


def check_code(code: str) -> None:
    """It is Python, and what it imports of this project exists; outside packages are not imported."""
    try:
        tree = ast.parse(code)
    except SyntaxError as e:
        raise WrongCommand(f"no valid Python: {e}") from None
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
        for module in modules:
            if module.split(".")[0] in ("sdrrl_nemo", "sdrrl_kernels", "recipes", "tools", "tests", "kernels"):
                try:
                    loaded = importlib.import_module(module)
                except ModuleNotFoundError as e:
                    raise WrongCommand(f"import {module}: {e}") from None
                for name in names if isinstance(node, ast.ImportFrom) else []:
                    known = hasattr(loaded, name) or importlib.util.find_spec(f"{module}.{name}") is not None
                    need(known, f"from {module} import {name}: no such name")


def check_pip(words: Sequence[str]) -> None:
    """Extras of this project exist, requirement files too; other packages are not looked up."""
    with open(ROOT / "pyproject.toml", "rb") as f:
        extras = set(tomllib.load(f)["project"]["optional-dependencies"])
    need(words[0] in ("install", "wheel", "download"), f"pip {words[0]} is not known here")
    for i, word in enumerate(words):
        own = re.fullmatch(r"(?:\.|sdrrl-nemo)\[([\w,-]+)\]", word)
        if own:
            unknown = set(own[1].split(",")) - extras
            need(not unknown, f"pip: pyproject.toml has no extra {sorted(unknown)}")
        if i and words[i - 1] in ("-r", "--requirement") and not word.startswith("/tmp/"):
            need((ROOT / word).is_file(), f"{word}: no such file")


def check_pytest(words: Sequence[str]) -> None:
    """Paths and the marker exist."""
    markers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for i, word in enumerate(words):
        if i and words[i - 1] == "-m":
            need(f'"{word.removeprefix("not ")}: ' in markers, f"pytest: no marker '{word}'")
        elif not word.startswith("-") and not (i and words[i - 1].startswith("-")):
            need((ROOT / word).exists(), f"{word}: no such file")


def check_script(path: str, words: Sequence[str], whole: bool, direct: bool) -> None:
    """The script exists, can be run, and its parser and configuration take the words."""
    file = ROOT / path
    need(file.is_file(), f"{path}: no such script")
    need(not direct or file.stat().st_mode & 0o111, f"{path}: has no run bit")
    if file.suffix != ".py":
        check_paths(words)
        return
    words = [w for w in words if not PLACEHOLDER.search(w) or w.startswith("--")]
    if "--help" in words or (not words and not whole):
        return
    if path.startswith("tests/"):  # importing them takes NeMo, and they are no tools of a user
        known = set(re.findall(r'"(--[a-z][a-z-]*)"', file.read_text(encoding="utf-8")))
        unknown = [w for w in words if w.startswith("--") and w.partition("=")[0] not in known]
        need(not unknown, f"{path} has no option {unknown}")
        return
    found = parser_of(path)
    if found is None:
        need(not words, f"{path} takes no arguments, not {words}")
    elif whole or any("=" in w and not w.startswith("-") for w in words):
        check_configuration(path, parsed(path, found, words, whole))
    else:
        known = {o for action in _actions(found) for o in action.option_strings}
        for word in words:
            need(not word.startswith("--") or word.partition("=")[0] in known, f"{path} has no option {word}")


def _actions(found: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in found._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)


def parsed(path: str, found: argparse.ArgumentParser, words: Sequence[str], whole: bool) -> argparse.Namespace | None:
    """What the parser makes of the words; None where placeholders left out something that it needs."""
    said = io.StringIO()
    subparsers = any(isinstance(a, argparse._SubParsersAction) for a in found._actions)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return found.parse_args(list(words)) if subparsers else found.parse_intermixed_args(list(words))
    except SystemExit:
        problem = said.getvalue().strip().splitlines()[-1]
        if ("expected" in problem and "argument" in problem) or (not whole and "required" in problem):
            return None  # its value was a placeholder
        raise WrongCommand(f"{path}: {problem}") from None


def check_configuration(path: str, arguments: argparse.Namespace | None) -> None:
    """The YAML file and each ``key=value`` are taken by the class that the script fills."""
    named = getattr(arguments, "config", None)
    if path not in CONFIGURED or not named:
        return
    if str(named).startswith("configs/"):
        need((ROOT / named).is_file(), f"{named}: no such file")
    if (ROOT / named).is_file():
        try:
            load_config(schema(CONFIGURED[path], ROOT / named), ROOT / named, list(arguments.overrides))  # type: ignore[union-attr]
        except SdrrlError as e:
            raise WrongCommand(str(e)) from None


def schema(kind: str, file: Path) -> type[Any]:
    """The dataclass that a configuration fills."""
    if kind == "data":
        from sdrrl_nemo.data.config import PreprocessConfig

        return PreprocessConfig
    if kind == "run":
        from sdrrl_nemo.train.config import RunConfig

        return RunConfig
    if kind == "study":
        from sdrrl_nemo.study.config import StudyConfig

        return StudyConfig
    if kind == "launch":
        from sdrrl_nemo.launch.config import LaunchConfig

        return LaunchConfig
    from sdrrl_nemo.eval.config import KIND, BenchmarkConfig, EvalConfig, kind_of

    return BenchmarkConfig if kind_of(str(file)) == KIND else EvalConfig


class _Parser(Exception):
    """Carries a script's parser out of its main function."""


@functools.cache
def parser_of(path: str) -> argparse.ArgumentParser | None:
    """The parser that a script's main function builds, without running anything after it; None: it has none."""

    def stop(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parser(self)

    module = _module(path)
    names = ("parse_args", "parse_known_args", "parse_intermixed_args")
    before = {name: getattr(argparse.ArgumentParser, name) for name in names}
    argv = sys.argv
    try:
        for name in names:
            setattr(argparse.ArgumentParser, name, stop)
        sys.argv = [path, "--help"]
        takes_arguments = module.main.__code__.co_argcount > 0
        module.main(["--help"]) if takes_arguments else module.main()
    except _Parser as e:
        return e.args[0]  # type: ignore[no-any-return]
    except SdrrlError:
        return None  # "takes no arguments"
    finally:
        sys.argv = argv
        for name, function in before.items():
            setattr(argparse.ArgumentParser, name, function)
    raise WrongCommand(f"{path}: main() builds no parser")


def _module(path: str) -> ModuleType:
    """A script as a module, under its dotted name."""
    name = path.removesuffix(".py").replace("/", ".")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
