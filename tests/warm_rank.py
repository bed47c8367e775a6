"""Stands in for the Python that torchrun starts a rank with: the rank itself is forked in tests/warm.py.

warm_rank.py SOCKET -u SCRIPT [ARGUMENT ...]

Signals are passed on, the exit code comes back; when this process is killed, so is the rank.
"""

import json
import os
import signal
import socket
import sys


def main(address: str, command: list[str]) -> int:
    """Ask, wait, end as the rank did."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    answers = connection.makefile()
    wish = {"command": command, "folder": os.getcwd(), "env": dict(os.environ), "log": f"/proc/{os.getpid()}/fd/1"}
    connection.sendall(json.dumps(wish).encode() + b"\n")
    rank = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: os.kill(rank, n))
    code = int(answers.readline() or -signal.SIGKILL)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    script = [word for i, word in enumerate(sys.argv[2:]) if i or word != "-u"]
    sys.exit(main(sys.argv[1], script))
