"""The frame of every command (common/cli.py): errors in one line, exit codes, ranks, readers that leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from sdrrl_nemo.common import cli
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.progress import progress
from tests.launch import environment


def run_with(error: BaseException | None) -> int:
    def main(argv: Sequence[str]) -> int | None:
        if error is not None:
            raise error
        return None

    return cli.run(main, [])


def test_run_turns_errors_into_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert run_with(None) == 0
    assert run_with(SdrrlError("x.yaml: no such file")) == 2
    assert capsys.readouterr().err == "error: x.yaml: no such file\n"
    assert run_with(KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        run_with(ZeroDivisionError())


RANKS = """
import os, sys, time
from sdrrl_nemo.common import cli
from sdrrl_nemo.common.errors import SdrrlError

def main(argv):
    time.sleep(float(argv[int(os.environ["RANK"])]))
    raise SdrrlError("train.bin: truncated")

sys.exit(cli.run(main))
"""


def test_rank_zero_speaks_although_another_rank_fails_first() -> None:
    """What a launcher does: as soon as one process fails, it ends the others."""
    command = [sys.executable, "-c", RANKS, "1.5", "0"]
    ranks = [
        subprocess.Popen(command, env={**environment(), "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    while all(rank.poll() is None for rank in ranks):
        time.sleep(0.02)
    for rank in ranks:
        rank.terminate()
    said = [rank.communicate()[1] for rank in ranks]
    assert said == ["error: train.bin: truncated\n", ""]
    assert ranks[0].returncode == 2


def test_a_rank_that_is_alone_with_its_error_says_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "RANK_ZERO_SPEAKS_S", 0.1)
    assert run_with(SdrrlError("x")) == 2
    assert capsys.readouterr().err == "\nerror: x\n"


PIPED = """
import argparse, os, sys
from sdrrl_nemo.common import cli

def main(argv):
    if argv[0] == "worker":
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b"x")
    argparse.ArgumentParser(argv[1], description="what it is for").parse_args(argv[2:])
    for n in range(int(argv[1])):
        print("line", n, flush=argv[0] == "flush")

sys.exit(cli.run(main))
"""


@pytest.mark.parametrize(
    "arguments", [["flush", "9999"], ["buffer", "99999"], ["buffer", "3"], ["buffer", "0", "--help"]], ids=" ".join
)
def test_a_reader_that_has_left_ends_the_tool_without_a_trace(arguments: list[str]) -> None:
    """``sdrrl ... | head -n 0`` as a shell starts it: in the middle, at the last flush, and with --help."""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", PIPED, *arguments]
    buffered = {k: v for k, v in environment().items() if k != "PYTHONUNBUFFERED"}
    tool = subprocess.Popen(command, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    if arguments[0] == "flush":
        assert os.read(reader, 4) == b"line"
    os.close(reader)
    said = tool.communicate(timeout=60)[1]
    assert (tool.returncode, said) == (cli.NO_READER, "")


def test_another_broken_pipe_is_no_reader_that_has_left() -> None:
    command = [sys.executable, "-c", PIPED, "worker", "3"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("BrokenPipeError: [Errno 32] Broken pipe")


def test_an_error_is_a_line_of_its_own(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an open progress bar on rank 0, and on another rank beside one."""

    def main(argv: Sequence[str]) -> None:
        bar = progress(None, "steps", total=3)
        bar.update()
        error = SdrrlError("no room")
        error.from_any_rank = True
        raise error

    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert cli.run(main, []) == 2
        assert "error: no room" in capfd.readouterr().err.splitlines()
