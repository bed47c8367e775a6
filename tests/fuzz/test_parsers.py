"""Arbitrary bytes, damaged valid files and the seeds (inputs that once failed) through every reader of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from tests.fuzz.harness import damaged, only_sdrrl_error, share
from tests.fuzz.parsers import PARSERS, names, place

SEEDS = Path(__file__).with_name("seeds")


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_file_is_read(name: str, tmp_path: Path) -> None:
    path = place(PARSERS[name], tmp_path)
    path.write_bytes(PARSERS[name].valid())
    said = only_sdrrl_error(path, lambda: PARSERS[name].read(path), name)
    if name in ("PreprocessConfig", "gguf"):  # gguf: the fuzzed part is the header, which the weights follow
        return
    assert said is None or name.endswith("Config"), said


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    path = place(parser, tmp_path)

    @share(parser.part)
    @given(damaged(parser.valid()))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        only_sdrrl_error(names(parser, path), lambda: parser.read(path), name)

    check()


@pytest.mark.parametrize("seed", sorted(p.name for p in SEEDS.iterdir() if p.is_file()))
def test_what_once_failed(seed: str, tmp_path: Path) -> None:
    """A seed's name is the reader's, two dashes, and what was wrong."""
    name = seed.partition("--")[0]
    parser = PARSERS[name]
    path = place(parser, tmp_path)
    path.write_bytes((SEEDS / seed).read_bytes())
    only_sdrrl_error(names(parser, path), lambda: parser.read(path), name)
