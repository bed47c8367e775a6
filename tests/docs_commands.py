"""Reads the project's documents: their blocks of code, the commands in them and in `inline code`, links and anchors."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("make", "sdrrl", "torchrun", "python", "pip", "pytest", "sbatch", "sky")
"""What a piece of inline code begins with when it is a command, besides scripts of the checkout."""
SCRIPT = re.compile(r"(?:tools|recipes|tests|docs|configs)/[\w./-]+\.(?:py|sh|sbatch)|sdrrl_nemo/[\w./-]+\.py")
ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
SEPARATORS = {"|", "||", "&&", ";", "&"}
REDIRECTIONS = {">", ">>", "<", "2>"}


def documents() -> list[Path]:
    """Every Markdown file that tells people what to do."""
    own = (ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"))
    others = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("data/**/README.md"), *ROOT.glob(".github/*.md")]
    return [*own, ROOT / "CODE_OF_CONDUCT.md", *sorted(others)]


def name_of(path: Path) -> str:
    """Path from the checkout's root."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A block of code with the language of its fence; '' for an indented one."""

    where: str
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which tables name it."""
        return self.text.split("\n", 1)[0]


def blocks(path: Path) -> list[Block]:
    """Fenced and indented blocks of a document, in order of kind."""
    text = path.read_text(encoding="utf-8")
    where = name_of(path)
    found = [Block(where, m[2], m[3].rstrip("\n")) for m in FENCE.finditer(text)]
    return found + [Block(where, "", body) for body in _indented(FENCE.sub("", text))]


def _indented(text: str) -> Iterator[str]:
    """Runs of lines indented by four after an empty line; empty lines inside a run belong to it."""
    run: list[str] = []
    before = ""
    for line in [*text.split("\n"), "end"]:
        if line.startswith("    ") and (run or not before.strip()):
            run.append(line[4:])
        elif run and not line.strip():
            run.append("")
        elif run:
            while not run[-1]:
                run.pop()
            yield "\n".join(run)
            run = []
        before = line


def prose(path: Path) -> str:
    """A document without its blocks."""
    kept: list[str] = []
    in_block = False
    for line in FENCE.sub("", path.read_text(encoding="utf-8")).split("\n"):
        starts = line.startswith("    ") and (in_block or not kept or not kept[-1].strip())
        in_block = starts or (in_block and not line.strip())
        if not in_block:
            kept.append(line)
    return "\n".join(kept)


def inline_code(path: Path) -> list[str]:
    """Pieces of inline code, line breaks as spaces."""
    return [" ".join(m[2].split()) for m in INLINE.finditer(prose(path))]


def is_inline_command(piece: str) -> bool:
    """Whether a piece of inline code is a command and not a name."""
    words = [w for w in piece.split() if not ASSIGNMENT.match(w)]
    if not words:
        return False
    if SCRIPT.fullmatch(words[0]) and words[0].startswith(("tools/", "recipes/", "configs/clusters/")):
        return len(words) > 1 or not words[0].startswith("configs/")
    return words[0] in PROGRAMS and len(words) > 1


def shell_lines(text: str) -> list[str]:
    """The commands of a block, one a line as they are printed: continuations and open quotes joined."""
    lines: list[str] = []
    pending = ""
    for line in text.split("\n"):
        pending = f"{pending}\n{line}" if pending else line
        if pending.endswith("\\"):
            continue
        try:
            shlex.split(pending, comments=True)
        except ValueError:  # an open quote
            continue
        if pending.strip() and not pending.lstrip().startswith("#"):
            lines.append(pending)
        pending = ""
    assert not pending, f"a quote is never closed: {pending}"
    return lines


def simple_commands(line: str) -> list[list[str]]:
    """The words of each command in a line, without assignments before it, redirections and comment."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if skip:
            skip = False
        elif word in SEPARATORS:
            commands.append([])
        elif word in REDIRECTIONS:
            skip = True
        elif commands[-1] or not ASSIGNMENT.match(word):
            commands[-1].append(word)
    return [c for c in commands if c]


def links(path: Path) -> list[str]:
    """Targets of a document's links, and pictures, in the repository."""
    targets = [m[2] for m in LINK.finditer(INLINE.sub("code", prose(path)))]
    return sorted({t for t in targets if "://" not in t and not t.startswith("mailto:")})


def anchors(path: Path) -> set[str]:
    """Names of a document's headings as GitHub, and the site, make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower().strip()).replace(" ", "-")
        number = sum(a == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", a) is not None for a in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found
