"""An Apertium that is none: programs that read its stream format as strictly as the published description has it.

They translate word for word, and misbehave at the words ``crash``, ``hang``, ``blank`` and ``forget``.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = r'''
import os, signal, sys, time

arguments = sys.argv[1:]
assert "-z" in arguments, "without -z this waits for the end of its input"
*_, data = arguments
words = dict(line.split() for line in open(data, encoding="utf-8"))
unknown = "" if "-n" in arguments or not words else "*"
READ = open(0, "rb", buffering=0)

def units(text):
    """Words, superblanks and other characters; whatever the format reserves must be escaped."""
    at, word = 0, ""
    while at < len(text):
        c = text[at]
        if c.isalpha():
            word += c
            at += 1
            continue
        if word:
            yield "word", word
            word = ""
        if c == "\\":
            if at + 1 == len(text):
                sys.exit("an escape without a character")
            yield "escaped", text[at : at + 2]
            at += 2
        elif c == "[":
            end = text.index("]", at)
            yield "blank", text[at : end + 1]
            at = end + 1
        elif c in "]{}^$@/<>~":
            sys.exit(f"'{c}' is not escaped")
        else:
            yield "other", c
            at += 1
    if word:
        yield "word", word

def translated(text):
    out = []
    for kind, part in units(text):
        if kind != "word" or not words:
            out.append(part)
        elif part == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif part == "hang":
            time.sleep(60)
        elif part == "blank":
            sys.stdout.write("\0\n\0")
        elif part == "forget":
            return "nothing"
        else:
            out.append(words.get(part.lower(), unknown + part))
    return "".join(out)

rest = b""
while piece := READ.read(65536):
    *whole, rest = (rest + piece).split(b"\0")
    for text in whole:
        sys.stdout.write(translated(text.decode("utf-8")) + "\0")
        sys.stdout.flush()
sys.stdout.write("\0\0")
'''
WORDS = {"the": "el", "cat": "gato", "sleeps": "duerme", "water": "agua", "good": "buena", "dog": "perro"}
DATA = "usr/share/apertium/apertium-{pair}"


def write_programs(root: Path) -> Path:
    """The programs below a folder that stands for ``/``; `write_pair` uses the first two."""
    folder = root / "usr/bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("lt-proc", "apertium-tagger", "apertium-transfer", "lrx-proc"):
        (folder / name).write_text(f"#!{sys.executable} -IS{PROGRAM}", encoding="utf-8")
        (folder / name).chmod(0o755)
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/x86_64-linux-gnu/liblttoolbox.so.3.0.0").write_bytes(b"\x7fELF")
    return root


def write_pair(root: Path, pair: str = "eng-spa", words: dict[str, str] | None = None) -> Path:
    """A mode with its data; its paths are those of an installed system, as Debian's are."""
    data = DATA.format(pair=pair)
    table = "".join(f"{a} {b}\n" for a, b in (WORDS if words is None else words).items())
    for name, text in (("automorf.bin", ""), ("prob", ""), ("autogen.bin", table)):
        path = root / data / f"{pair}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    mode = root / f"usr/share/apertium/modes/{pair}.mode"
    mode.parent.mkdir(parents=True, exist_ok=True)
    mode.write_text(
        f"lt-proc '/{data}/{pair}.automorf.bin' | apertium-tagger -g $2 '/{data}/{pair}.prob' "
        f"| lt-proc $1 '/{data}/{pair}.autogen.bin'\n",
        encoding="utf-8",
    )
    return root
