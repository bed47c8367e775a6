"""Texts through a row of programs that read and write Apertium's stream format, many texts in one go."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from sdrrl_nemo.common.errors import SdrrlError

_CONTROL = re.compile(r"([\\\[\]{}^$@/<>])")
"""Characters that mean something in the stream; a backslash before one makes it a character of the text."""
_UNIT = re.compile(r"\\(.)|\[([^\]]*)\]", re.DOTALL)
_MARKED = re.compile(r"(?P<text>.*?)\.?[ \n]*(?<!\\)\[(?P<number>\d+)\]\s*", re.DOTALL)
ENDING_S = 5.0
"""How long the other programs may take to end once the last one has."""


class Ran(NamedTuple):
    """Translations that came back, by number, and why others did not ('' where nothing is wrong)."""

    found: dict[int, str]
    problem: str


def encoded(number: int, text: str) -> bytes:
    """One text for the programs: control characters escaped, a stop that ends its last sentence, its number as a
    superblank (a part in brackets that every program passes on), and NUL, at which every program writes out."""
    plain = text.encode("utf-8", "ignore").decode("utf-8").replace("\0", " ")
    # A tilde wakes the post-generator up, even behind a backslash; in a superblank it is left alone.
    body = _CONTROL.sub(r"\\\1", plain).replace("~", "[~]")
    return f"{body}.[{number}]\0".encode()


def decoded(output: bytes) -> dict[int, str]:
    """What the programs wrote, by the numbers that they passed on; a part without its number is left out. Where a
    number comes twice, neither is believed."""
    found: dict[int, str] = {}
    twice: set[int] = set()
    for part in output.decode("utf-8", "replace").split("\0"):
        if match := _MARKED.fullmatch(part):
            number = int(match["number"])
            twice |= {number} & found.keys()
            plain = _UNIT.sub(lambda unit: unit[1] or unit[2] or "", match["text"])
            found[number] = re.sub(" {2,}", " ", plain).strip()
    return {number: text for number, text in found.items() if number not in twice}


def run(
    commands: Sequence[Sequence[str]], libraries: Iterable[Path], texts: Mapping[int, str], timeout_s: float
) -> Ran:
    """Translate texts in one start of the programs. Whatever came back whole before one of them ended early, or before
    ``timeout_s`` was over, is there. SdrrlError where a program cannot be started."""
    folders = list(dict.fromkeys(str(path.parent) for path in libraries))
    search = ":".join([*folders, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    env = {**os.environ, "LC_ALL": "C.UTF-8", **({"LD_LIBRARY_PATH": search} if search else {})}
    # Files at both ends: nobody has to write while somebody reads, and what a killed program wrote is kept.
    with contextlib.ExitStack() as open_files:
        given, got, *said = (open_files.enter_context(tempfile.TemporaryFile()) for _ in range(2 + len(commands)))
        given.write(b"".join(encoded(number, text) for number, text in texts.items()))
        given.seek(0)
        problem = _through(commands, given, got, said, env, timeout_s)
        got.seek(0)
        return Ran(decoded(got.read()), problem)


def _through(
    commands: Sequence[Sequence[str]],
    given: IO[bytes],
    got: IO[bytes],
    said: Sequence[IO[bytes]],
    env: Mapping[str, str],
    timeout_s: float,
) -> str:
    """Start the programs in a row and wait for the last one; what went wrong, or ''."""
    running: list[subprocess.Popen[bytes]] = []
    late = ""
    try:
        feed: IO[bytes] = given
        for place, command in enumerate(commands):
            out = got if place == len(commands) - 1 else subprocess.PIPE
            running.append(subprocess.Popen(command, stdin=feed, stdout=out, stderr=said[place], env=env))
            if place:
                feed.close()  # so that a program learns when the next one is gone
            feed = running[-1].stdout or got
        running[-1].wait(timeout_s)
        for program in running:
            program.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        late = f"not done within {timeout_s:g} s"
    except (OSError, ValueError) as e:
        raise SdrrlError(f"translator 'apertium': {command[0]} cannot be started ({e})") from None
    finally:
        stopped = [program for program in running if program.poll() is None]
        for program in stopped:
            program.kill()
            program.wait()
        for program in running:
            if program.stdout:
                program.stdout.close()
    # The last in the row is the cause: those before it lost their reader, those that were stopped here only waited.
    for command, program, words in zip(reversed(commands), reversed(running), reversed(said), strict=True):
        if program not in stopped and program.returncode != 0:
            words.seek(0)
            last = words.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            return ": ".join([f"{Path(command[0]).name} ended with exit status {program.returncode}", *last])
    return late
