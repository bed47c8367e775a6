"""Where a pair's programs and data are: in a folder, on this system, or in Debian packages unpacked into a cache."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.engines.debian import package_root
from sdrrl_nemo.data.text.languages import language

MODES = "usr/share/apertium/modes"
PROGRAMS = (
    ("apertium", "3.8.3-1+b2", "usr/bin/apertium-transfer"),
    ("libapertium3", "3.8.3-1+b2", "usr/lib"),
    ("lttoolbox", "3.7.1-1+b2", "usr/bin/lt-proc"),
    ("liblttoolbox3", "3.7.1-1+b2", "usr/lib"),
    ("apertium-lex-tools", "0.4.2-2", "usr/bin/lrx-proc"),
    ("libapertium-lex-tools1", "0.4.2-2", "usr/lib"),
)
"""Package of Debian 12, its version, a path in it: the programs of every pair, and the libraries that they load."""
PAIRS = {frozenset({"eng", "spa"}): ("apertium-eng-spa", "0.8.1-2")}
"""Languages -> the Debian package with the rules and dictionaries of both directions."""
_LIBRARIES = re.compile(r"lib(?:apertium|lttoolbox)[\w-]*\.so(?:\.\d+)*")
_SHELL = re.compile(r"[$`;&<>(){}*?]")
"""What a mode file may not say: it is read as programs in a row, and no shell ever sees it."""


@dataclass(frozen=True)
class Pipeline:
    """The programs of one direction, each fed by the one before it, with the files that they read."""

    mode: Path
    commands: tuple[tuple[str, ...], ...]
    data: tuple[Path, ...]
    libraries: tuple[Path, ...]
    """Apertium's own shared libraries; the loader looks into their folders first."""

    def files(self) -> list[Path]:
        """Everything whose bytes a translation may depend on, each once, by name."""
        programs = {Path(command[0]) for command in self.commands}
        return sorted({self.mode, *programs, *self.data, *self.libraries}, key=lambda path: (path.name, path))


def pipeline(source: str, target: str, folder: str | None, cache: str) -> Pipeline:
    """The programs that translate ``source`` into ``target``. SdrrlError where the pair or one of its files is missing.

    ``folder`` stands for ``/`` of a system with Apertium. Without it: the system's own Apertium where it has the pair,
    else the pinned Debian packages, unpacked into ``cache``.
    """
    if folder is not None:
        return _read(_mode([Path(folder)], source, target, f"in {folder}"), [Path(folder)])
    own = _of_this_system(source, target)
    if own is not None:
        return own
    package = PAIRS.get(frozenset({source, target}))
    if package is None:
        served = ", ".join("-".join(sorted(pair)) for pair in PAIRS)
        raise SdrrlError(
            f"translator 'apertium' does not serve {source}->{target}: no Debian package is known for the pair (known: "
            f"{served}), and this system has none; install one, or name a folder that holds one in its option 'folder'"
        )
    roots = [_package(*wanted, cache) for wanted in (*PROGRAMS, (*package, MODES))]
    return _read(_mode(roots, source, target, f"in {package[0]}"), roots)


def _package(name: str, version: str, probe: str, cache: str) -> Path:
    try:
        return package_root(name, version, probe, cache)
    except SdrrlError as e:
        raise SdrrlError(
            f"translator 'apertium': this system has no Apertium for the pair, and {e} (on Debian, "
            f"'apt-get install apertium-eng-spa' is all it needs)"
        ) from None


def _of_this_system(source: str, target: str) -> Pipeline | None:
    """Through the program ``apertium`` in PATH; None where there is none, or it lacks the pair."""
    program = shutil.which("apertium")
    if program is None:
        return None
    place = os.environ.get("APERTIUM_DATADIR") or Path(program).parent.parent / "share/apertium"
    for name in _names(source, target):
        if (mode := Path(place) / "modes" / f"{name}.mode").is_file():
            return _read(mode, [Path("/")], Path(program).parent)
    return None


def _names(source: str, target: str) -> tuple[str, str]:
    """What a pair's mode may be called; old pairs have codes of two letters."""
    ends = language(source), language(target)
    return "-".join(end.code for end in ends), "-".join(end.fasttext for end in ends)


def _mode(roots: Sequence[Path], source: str, target: str, where: str) -> Path:
    for name in _names(source, target):
        for root in roots:
            if (mode := root / MODES / f"{name}.mode").is_file():
                return mode
    raise SdrrlError(f"translator 'apertium': there is no {MODES}/{source}-{target}.mode {where}; correct 'folder'")


def _read(mode: Path, roots: Sequence[Path], programs: Path | None = None) -> Pipeline:
    """A mode file: a line ``program option file | program ...``. Its paths are those of the system that the package was
    made for; they are looked for under ``roots``."""
    data: list[Path] = []
    folders = [*([programs] if programs else []), *(root / "usr/bin" for root in roots)]
    try:
        text = mode.read_text(encoding="utf-8")
        parts = [shlex.split(part) for part in text.split("|")]
    except (OSError, ValueError) as e:
        raise SdrrlError(f"{mode}: not a readable mode file ({e})") from None
    commands = []
    for words in parts:
        if not words:
            raise SdrrlError(f"{mode}: a program is missing before or after '|'")
        options = [word for raw in words[1:] for word in _option(raw, mode, roots, data)]
        flush = [] if "-z" in options else ["-z"]  # each text ends with NUL, after which every program writes it out
        commands.append((str(_program(words[0], mode, folders)), *flush, *options))
    libraries = [path for folder in folders for path in _libraries(folder.parent / "lib")]
    return Pipeline(mode, tuple(commands), tuple(data), tuple(libraries))


def _option(word: str, mode: Path, roots: Sequence[Path], data: list[Path]) -> Iterator[str]:
    """One word of a mode file as it is to be called."""
    if word == "$1":
        yield "-n"  # generate words without marks for what is unknown; `apertium -u` puts the same
    elif word == "$2":
        return  # the tagger's option for showing every reading
    elif _SHELL.search(word):
        raise SdrrlError(f"{mode}: '{word}' is more than a program's option; only programs in a row can be run")
    elif word.startswith("/"):
        data.append(_first((root / word[1:] for root in roots), Path.is_file, f"{mode} names {word}, which is missing"))
        yield str(data[-1])
    else:
        yield word


def _program(name: str, mode: Path, folders: Sequence[Path]) -> Path:
    def runs(path: Path) -> bool:
        return path.is_file() and os.access(path, os.X_OK)

    if _SHELL.search(name) or "/" in name:
        raise SdrrlError(f"{mode}: '{name}' is no program's name; only programs in a row can be run")
    missing = f"{mode} needs the program '{name}', which is not in {', '.join(map(str, dict.fromkeys(folders)))}"
    return _first((folder / name for folder in folders), runs, missing)


def _first(paths: Iterable[Path], fits: Callable[[Path], bool], missing: str) -> Path:
    for path in paths:
        if fits(path):
            return path
    raise SdrrlError(f"translator 'apertium': {missing}")


def _libraries(folder: Path) -> Iterator[Path]:
    """Files, not the links to them; in Debian they are in a folder named by the machine's kind."""
    for path in sorted([*folder.glob("lib*.so*"), *folder.glob("*-linux-*/lib*.so*")]):
        if _LIBRARIES.fullmatch(path.name) and not path.is_symlink():
            yield path
