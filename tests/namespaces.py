"""Machines for real, as far as one can be several: network namespaces with addresses of their own, joined by a switch.

Each node has its own network, host name, /etc/hosts and, where asked for, folders of its own; processes and the file
system are shared. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CABLE = "eth0"
"""Name of the cable's end in each namespace."""
SWITCH = "sdrrl-switch"


def ip(*words: str) -> None:
    """iproute2."""
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def machines(nodes: Mapping[str, str]) -> Iterator[None]:
    """Namespaces by name, with their IPv4 addresses in one /24 network; the loopback of each is its own."""
    _remove(nodes)
    try:
        ip("link", "add", SWITCH, "type", "bridge")
        ip("link", "set", SWITCH, "up")
        for number, (node, address) in enumerate(nodes.items()):
            ip("netns", "add", node)
            ip("link", "add", port(number), "type", "veth", "peer", "name", CABLE, "netns", node)
            ip("link", "set", port(number), "master", SWITCH, "up")
            ip("-n", node, "addr", "add", f"{address}/24", "dev", CABLE)
            ip("-n", node, "link", "set", CABLE, "up")
            ip("-n", node, "link", "set", "lo", "up")
            hosts = _etc(node) / "hosts"
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in nodes.items()))
        yield
    finally:
        _remove(nodes)


def port(number: int) -> str:
    """The switch's end of a node's cable."""
    return f"sdrrl-port{number}"


def _etc(node: str) -> Path:
    """Files that ``ip netns exec`` puts over those of /etc."""
    return Path("/etc/netns") / node


def _remove(nodes: Mapping[str, str]) -> None:
    for number, node in enumerate(nodes):
        # Both, because a namespace that is deleted goes, with its end of the cable, only after its last process.
        subprocess.run(["ip", "link", "del", port(number)], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", node], check=False, capture_output=True)
        (_etc(node) / "hosts").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            _etc(node).rmdir()
    subprocess.run(["ip", "link", "del", SWITCH], check=False, capture_output=True)


def on(node: str, command: Sequence[str], own: Mapping[Path, Path] | None = None) -> list[str]:
    """The command line that runs ``command`` on a node.

    ``own``: folders of the node alone (values: where they really lie), such as /tmp/ray.
    """
    mounts = [f"mount --bind '{real}' '{seen}'" for seen, real in (own or {}).items()]
    script = " && ".join([f"hostname {node}", *mounts, 'exec "$@"'])
    return ["ip", "netns", "exec", node, "unshare", "--mount", "--uts", "bash", "-c", script, "bash", *command]


def processes(node: str) -> list[int]:
    """Ids of all processes of a node."""
    done = subprocess.run(["ip", "netns", "pids", node], check=True, capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]
