"""Runs unit tests in forks of a process that has imported their libraries, but no module of the project.

A script of its own, started in a copy of the checkout by `tests.mutation`; reads a JSON document from standard input
and writes one JSON line for each answer to the file named there.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path.cwd()
SPARE_MEMORY = 8 << 30
"""Bytes that a mutant may take beyond what the warm process has mapped."""


PLUGINS = ("-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin")
"""Those in use; to look for all that are installed takes a second for each mutant."""


class Plugin:
    """Chooses and orders tests; with ``targets`` records which lines of them each test runs, and its seconds."""

    def __init__(self, chosen: list[str] | None, deselect: list[str], targets: list[str]) -> None:
        self.chosen, self.deselect = chosen, deselect
        self.targets = {str(ROOT / t): t for t in targets}
        self.tests: dict[str, dict[str, Any]] = {}
        self.shared: dict[str, set[tuple[str, int]]] = {}
        self.lines: set[tuple[str, int]] = set()
        self.at = 0.0

    def pytest_configure(self) -> None:
        """A failing example is enough: no time goes into a smaller one."""
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutation", derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate]
        )
        settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.chosen is None:
            items[:] = [i for i in items if not any(word in i.nodeid for word in self.deselect)]
            return
        by_name = {i.nodeid: i for i in items}
        items[:] = [by_name[name] for name in self.chosen if name in by_name]

    def trace(self, frame: Any, event: str, arg: Any) -> Any:
        name = self.targets.get(frame.f_code.co_filename)
        if name is None:
            return None
        self.lines.add((name, frame.f_lineno))

        def local(frame: Any, event: str, arg: Any) -> Any:
            self.lines.add((name, frame.f_lineno))
            return local

        return local

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not self.targets:
            return
        test = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "outcome": "passed", "lines": set()})
        if report.outcome != "passed":
            test["outcome"] = report.outcome
        file = report.nodeid.split("::")[0]
        # what a fixture of the module ran, it ran for all tests of the module
        (self.shared.setdefault(file, set()) if report.when == "setup" else test["lines"]).update(self.lines)
        self.lines.clear()
        now = _cpu()
        test["seconds"] += now - self.at
        self.at = now

    def pytest_runtest_logstart(self) -> None:
        self.at = _cpu()
        if self.targets:
            _clear_caches(set(self.targets))
            sys.settrace(self.trace)

    def pytest_runtest_logfinish(self) -> None:
        sys.settrace(None)


def _clear_caches(files: set[str]) -> None:
    """Or only the first test that needs a cached value would be said to run the lines that make it."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) in files:
            for value in vars(module).values():
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


def _cpu() -> float:
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _pytest(files: list[str], plugin: Plugin) -> int:
    import pytest

    options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", *PLUGINS, "-q", "--tb=line", "--no-header"]
    if not plugin.targets:
        options.append("-x")
    return int(pytest.main([*options, *files], plugins=[plugin]))


def trace(job: dict[str, Any]) -> dict[str, Any]:
    """Every test of ``job["tests"]`` once: seconds, outcome, lines; and the libraries it all imported."""
    plugin = Plugin(None, job["deselect"], job["targets"])
    status = _pytest(job["tests"], plugin)
    for name, test in plugin.tests.items():
        lines: dict[str, list[int]] = {}
        for file, line in sorted(test["lines"] | plugin.shared.get(name.split("::")[0], set())):
            lines.setdefault(file, []).append(line)
        test["lines"] = lines
    foreign = [
        name
        for name, m in list(sys.modules.items())
        if not str(getattr(m, "__file__", None) or ROOT).startswith(str(ROOT)) and not name.startswith("_pytest")
    ]
    return {"status": status, "tests": plugin.tests, "modules": foreign}


def _warm(modules: list[str]) -> None:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # as conftest.py does; triton looks when it is imported
    for name in modules:
        with contextlib.suppress(Exception):  # only to save time: who needs the module imports it again, and sees why
            importlib.import_module(name)


def try_mutant(mutant: dict[str, Any]) -> str:
    """killed, survived or timeout; the mutated file lies in the tree only meanwhile. No code: the file as it is."""
    path = ROOT / mutant["path"]
    original = path.read_bytes()
    if mutant["code"] is not None:
        path.write_text(mutant["code"], encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            _child(mutant)
        return _wait(child, mutant["seconds"])
    finally:
        path.write_bytes(original)


def _child(mutant: dict[str, Any]) -> None:
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    limit = int(mutant["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + SPARE_MEMORY,) * 2)
    files = list(dict.fromkeys(name.split("::")[0] for name in mutant["tests"]))
    status = 3
    try:
        status = _pytest(files, Plugin(mutant["tests"], [], []))
    finally:
        os._exit(status)


def _wait(child: int, seconds: float) -> str:
    """Its CPU seconds are limited by the kernel; this also ends one that waits for ever."""
    end = time.monotonic() + 60 + 6 * seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that a test has left behind
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
                return "timeout"
            return "survived" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def main() -> None:
    job = json.load(sys.stdin)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True  # a mutated file may have the size and the second of the one before
    with open(job["answers"], "a", encoding="utf-8") as out:
        if "mutants" not in job:
            out.write(json.dumps(trace(job)) + "\n")
            return
        _warm(job["modules"])
        for mutant in job["mutants"]:
            outcome = try_mutant(mutant)
            out.write(json.dumps({"id": mutant["id"], "outcome": outcome}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
