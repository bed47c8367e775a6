"""The Language Confusion Benchmark is fetched from an address or a folder, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.eval.config import BenchmarkConfig
from sdrrl_nemo.eval.evaluation import plan
from sdrrl_nemo.eval.readers import confusion_archive as archive
from sdrrl_nemo.eval.readers.confusion_archive import fetch_language_confusion
from sdrrl_nemo.eval.readers.further_files import read_english_words, read_language_confusion
from tests.launch import ROOT

SAMPLES = ROOT / "data" / "benchmarks"
SHIPPED = SAMPLES / "language-confusion"


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder with both files as the authors' repository has them, and what a Mac puts into an archive."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    shutil.copy(SHIPPED / "words", folder / "words")
    with zipfile.ZipFile(folder / "test_sets.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("test_sets/", "")
        for path in sorted((SHIPPED / "test_sets").rglob("*.csv")):
            z.write(path, path.relative_to(SHIPPED).as_posix())
        z.writestr("test_sets/.DS_Store", b"\0")
        z.writestr("__MACOSX/test_sets/monolingual/sample/._pt.csv", b"\0")
        z.writestr("../outside.csv", "prompt\n")
    return folder


@pytest.fixture
def address(mirror: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(mirror))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("over", ["http", "folder"])
def test_the_prompts_and_the_words_are_those_of_the_mirror(
    tmp_path: Path, mirror: Path, address: str, over: str
) -> None:
    pytest.importorskip("fasttext")
    hub = {"language_confusion": address if over == "http" else str(mirror)}
    data = tmp_path / "data"
    config = BenchmarkConfig(data_dir=str(data), names=["language_confusion"], download=True, hub=hub)
    tasks, skipped = plan(config)
    assert not skipped and len(tasks) == 3
    for lang in ("eng", "por"):
        assert read_language_confusion(data, lang) == read_language_confusion(SAMPLES, lang)
    assert read_english_words(data) == read_english_words(SAMPLES)
    assert _names(data / "language-confusion") == sorted(n for n in _names(SHIPPED) if n.endswith((".csv", "words")))
    shutil.rmtree(mirror)  # what is there is not fetched again
    plan(config)


def test_only_the_authors_files_are_taken_from_their_address(
    tmp_path: Path, address: str, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ADDRESS", address)
    with pytest.raises(SdrrlError, match=r"test_sets\.zip: its sha256 is [0-9a-f]{64}, not 3425337"):
        fetch_language_confusion(tmp_path / "data")
    assert not (tmp_path / "data").exists()
    hashes = {n: hashlib.sha256((mirror / n).read_bytes()).hexdigest() for n in archive.SHA256}
    monkeypatch.setattr(archive, "SHA256", hashes)
    fetch_language_confusion(tmp_path / "data", words="mine")
    assert not (tmp_path / "data/language-confusion/words").exists()  # the user's list is used
    fetch_language_confusion(tmp_path / "data")
    assert (tmp_path / "data/language-confusion/words").read_bytes() == (mirror / "words").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            None,
            r"test_sets\.zip: cannot be fetched \(.*404.*put test_sets .* into .*language-confusion, or name a copy",
        ),
        (b"<html>Sign in</html>", r"test_sets\.zip: not a zip archive"),
        ({"README.md": ""}, r"not a zip archive \(no test_sets/<setting>/<source>/<language>\.csv in it\)"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    tmp_path: Path, mirror: Path, address: str, content: bytes | dict[str, str] | None, said: str
) -> None:
    place = mirror / "test_sets.zip"
    place.unlink()
    if isinstance(content, dict):
        with zipfile.ZipFile(place, "w") as z:
            for name, text in content.items():
                z.writestr(name, text)
    elif content is not None:
        place.write_bytes(content)
    with pytest.raises(SdrrlError, match=said):
        fetch_language_confusion(tmp_path / "data", address)
    assert not (tmp_path / "data/language-confusion/test_sets").exists()


@pytest.mark.parametrize("mirror_name", ["http://127.0.0.1:9", "nowhere", "http://[", "ftp://host"])
def test_an_address_that_is_none(tmp_path: Path, mirror_name: str) -> None:
    with pytest.raises(SdrrlError, match="cannot be fetched"):
        fetch_language_confusion(tmp_path / "data", mirror_name)
