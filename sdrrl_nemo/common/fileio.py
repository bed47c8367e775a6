"""Files that are either whole or absent: temporary name, fsync, rename; JSON Lines with line numbers in errors;
a part of a page that a tool writes between two lines of its own."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sdrrl_nemo.common.errors import SdrrlError


def fsync_dir(path: Path) -> None:
    """Make a rename inside ``path`` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, final: Path) -> None:
    """fsync ``temporary`` and rename it to ``final`` (same file system), durably."""
    with open(temporary, "rb+") as f:
        os.fsync(f.fileno())
    os.replace(temporary, final)
    fsync_dir(final.parent)


NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def room_on_disk(path: str | Path) -> Iterator[None]:
    """A write under ``path`` that finds no room (full disk, quota, file size limit) becomes a SdrrlError."""
    try:
        yield
    except OSError as e:
        if e.errno not in NO_ROOM:
            raise
        raise SdrrlError(
            f"{path}: no room to write ({os.strerror(e.errno or 0)}); free some and run the same command again: what "
            "is finished is kept"
        ) from None


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Reading ``path``: whatever the system says against it (no permission, a bad disk, no such file) becomes a
    SdrrlError that names it."""
    try:
        yield
    except OSError as e:
        raise SdrrlError(f"{path}: cannot be read ({e.strerror or e}); check the path and its permissions") from None


BROKEN_JSON = (ValueError, RecursionError)
"""What json.loads raises: no JSON, no UTF-8 or thousands of digits; nested deeper than the interpreter goes."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which JSON can name and no file can hold."""
    return _SURROGATE.sub("\ufffd", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _parsed(raw: bytes, encoding: str = "utf-8", unique: bool = False) -> Any:
    """The value that JSON bytes stand for; one of BROKEN_JSON where they stand for none, or for no writable text."""
    value = json.loads(raw.decode(encoding), object_pairs_hook=_unique if unique else None)
    if b"\\ud" in raw or b"\\uD" in raw:  # an emoji's two halves, or one half, which cannot be written again
        json.dumps(value, ensure_ascii=False).encode()
    return value


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on a clean exit it is fsynced and renamed, else removed.

    Processes on several machines may write the same file: the temporary name holds machine and process, the last
    rename stays. SdrrlError when the disk is full.
    """
    final = Path(path)
    tmp = final.with_name(f".{final.name}.{platform.node()}-{os.getpid()}.tmp")
    kwargs: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with room_on_disk(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(tmp, mode, **kwargs) as f:
                yield f
            publish(tmp, final)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            h.update(block)
    return h.hexdigest()


def canonical_json(obj: Any) -> str:
    """One text per value: sorted keys, no spaces, UTF-8 kept; the input of every fingerprint."""
    return json.dumps(obj, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_key(*parts: Any) -> str:
    """16 hex digits that name a piece of content (64 bits of SHA-256 over canonical JSON)."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def read_jsonl(path: str | Path, torn_end: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON Lines file; blank lines and a byte-order mark are skipped.

    ``torn_end``: a last line without its newline, left by a full disk or a kill while it was appended, is skipped too.

    Raises SdrrlError that names file and line when the file is missing, not UTF-8, or a line is no JSON object.
    """
    p = Path(path)
    with readable(p):
        if not p.is_file():
            raise SdrrlError(f"{p}: no such file; check the path in the configuration")
        f = open(p, "rb")  # noqa: SIM115 - what its reader raises at the yield below is not about this file
    with f:
        for n, raw in enumerate(f, 1):
            if not raw.strip() or (torn_end and not raw.endswith(b"\n")):
                continue
            try:
                row = _parsed(raw, "utf-8-sig" if n == 1 else "utf-8")
            except BROKEN_JSON as e:
                raise SdrrlError(f"{p}, line {n}: not valid JSON ({e}); mend or remove the line") from None
            if not isinstance(row, dict):
                raise SdrrlError(f"{p}, line {n}: expected a JSON object, found {type(row).__name__}")
            yield n, row


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows atomically, one canonical JSON object a line; returns how many."""
    count = 0
    with atomic_write(path) as f:
        for row in rows:
            f.write(canonical_json(row) + "\n")
            count += 1
    return count


def read_json(path: str | Path, unique: bool = False) -> Any:
    """Parse one JSON file; SdrrlError names the file when it is missing or broken.

    ``unique``: broken too where an object has a name twice, of which JSON's readers keep the last without a word.
    """
    p = Path(path)
    try:
        with readable(p):
            if not p.exists():
                raise SdrrlError(f"{p}: no such file")
            return _parsed(p.read_bytes(), unique=unique)
    except BROKEN_JSON as e:
        raise SdrrlError(f"{p}: not valid JSON ({e})") from None


def read_json_object(path: str | Path) -> dict[str, Any]:
    """:func:`read_json` of a file that must hold an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise SdrrlError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def write_json(path: str | Path, obj: Any) -> None:
    """Write one JSON document atomically, indented and with sorted keys."""
    with atomic_write(path) as f:
        json.dump(obj, f, indent=2, sort_keys=True, ensure_ascii=False)
        f.write("\n")


def markers(part: str, tool: str) -> tuple[str, str]:
    """The lines before and after what ``tool`` writes as ``part`` of a page."""
    return f"<!-- {part}: written by {tool} -->", f"<!-- {part}: end -->"


def write_parts(page: Path, parts: Mapping[str, str], tool: str, check: bool = False) -> bool:
    """Put each part of ``page`` that ``tool`` writes between its markers; whether that changed the page.

    ``parts``: name of a part to its text. Errors: SdrrlError unless both markers of each part are there once, in
    order; with ``check``, which writes nothing, also where the page says something else.
    """
    old = new = page.read_text(encoding="utf-8")
    for part, text in parts.items():
        begin, end = markers(part, tool)
        if new.count(begin) != 1 or new.count(end) != 1 or new.index(end) < new.index(begin):
            raise SdrrlError(f"{page}: needs the lines '{begin}' and '{end}' once, in this order")
        new = f"{new.partition(begin)[0]}{begin}\n{text}\n{end}{new.partition(end)[2]}"
    if new == old:
        return False
    if check:
        raise SdrrlError(f"{page}: differs from the results that {tool} writes into it; run {tool}")
    with atomic_write(page) as f:
        f.write(new)
    return True
