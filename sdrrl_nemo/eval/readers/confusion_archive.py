"""The Language Confusion Benchmark from its repository, which no hub has: prompts in an archive, and a list of words.

Both files are those of for-ai/language-confusion at one commit and are held to their hashes. ``hub.language_confusion``
names another address or a folder to take them from.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import ssl
import tempfile
import zipfile
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, fsync_dir
from sdrrl_nemo.eval.readers.row_files import candidates

ADDRESS = "https://raw.githubusercontent.com/for-ai/language-confusion/0cfdbb4a64502648938c456b2fa9689968f22298"
ARCHIVE, WORDS = "test_sets.zip", "words"
SHA256 = {
    ARCHIVE: "3425337489fa65ff15d977e981e9748c86ce8e88ef0f4457ecdb4a65d8702712",
    WORDS: "1ec8230beef2a7c955742b089fc3cea2833866cf5482bf018d7c4124eef104bd",
}
_PROMPTS = re.compile(r"test_sets/(monolingual|crosslingual)/\w+/[a-z]{2}\.csv")
TIMEOUT_S = 60.0


def fetch_language_confusion(data_dir: str | Path, mirror: str = "", words: str = "") -> None:
    """Write ``test_sets`` and ``words`` into ``language-confusion`` below ``data_dir``, each unless it is there.

    ``mirror``: an address or a folder that holds both files, in the place of the authors' repository. ``words``: the
    list that the user named; no other is fetched then. Errors: SdrrlError names the file and says where to put it.
    """
    root = Path(data_dir, "language-confusion")
    if not (root / "test_sets").is_dir():
        raw = _file(ARCHIVE, mirror, root)
        try:
            _unpack(raw, root)
        except zipfile.BadZipFile as e:
            raise SdrrlError(f"{mirror or ADDRESS}/{ARCHIVE}: not a zip archive ({e}); name another in hub") from None
    if not words and not any(c.is_file() for c in candidates(root / WORDS)):
        raw = _file(WORDS, mirror, root)
        with atomic_write(root / WORDS, "wb") as f:
            f.write(raw)


def _file(name: str, mirror: str, root: Path) -> bytes:
    """One of the two files, whole and, from the authors' repository, the very one that was tried."""
    place = f"{mirror or ADDRESS}/{name}"
    try:
        raw = _over_http(place) if "://" in place else Path(place).read_bytes()
    except OSError as e:
        raise SdrrlError(
            f"{place}: cannot be fetched ({e}); put test_sets (the unpacked {ARCHIVE}) and words of "
            f"github.com/for-ai/language-confusion into {root}, or name a copy in hub.language_confusion"
        ) from None
    found = hashlib.sha256(raw).hexdigest()
    if not mirror and found != SHA256[name]:
        raise SdrrlError(
            f"{place}: its sha256 is {found}, not {SHA256[name]}; it was damaged on its way, fetch it again"
        )
    return raw


def _over_http(url: str) -> bytes:
    import httpx  # slow to import, and most runs fetch nothing

    try:
        answer = httpx.get(url, follow_redirects=True, timeout=TIMEOUT_S, verify=ssl.create_default_context())
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise OSError(" ".join(str(e).split())[:160] or type(e).__name__) from None
    return answer.content


def _unpack(raw: bytes, root: Path) -> None:
    """The archive's prompts as ``test_sets``, there whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, tempfile.TemporaryDirectory(dir=root) as temporary:
        names = [n for n in archive.namelist() if _PROMPTS.fullmatch(n)]
        if not names:
            raise zipfile.BadZipFile("no test_sets/<setting>/<source>/<language>.csv in it")
        for name in names:
            with atomic_write(Path(temporary, name), "wb") as f:
                f.write(archive.read(name))
        try:
            os.replace(Path(temporary, "test_sets"), root / "test_sets")
        except OSError:
            if not (root / "test_sets").is_dir():  # else another process was first
                raise
    fsync_dir(root)
