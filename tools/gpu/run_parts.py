"""One part after another within a time: what fails is recorded with its sentence, what is left out is named."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError, one_line
from sdrrl_nemo.common.fileio import write_json
from sdrrl_nemo.common.provenance import REPO_ROOT, provenance
from sdrrl_nemo.doctor.text import clean
from tools.gpu.child import Child
from tools.gpu.parts import Part

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
LONGEST = 240.0
"""Seconds of one part; one that hangs leaves time to the others."""
CORES_AHEAD = 2
"""With so many cores a process imports NeMo while the one before it is measured."""


@dataclass
class Running:
    """A part whose process was started."""

    part: Part
    child: Child


@dataclass
class Course:
    """The parts, the time they have, and the records of those that are over."""

    parts: Sequence[Part]
    seconds: float
    logs: Path
    output: Path
    about: dict[str, Any]
    threads: int = 1
    ahead: bool = (os.cpu_count() or 1) >= CORES_AHEAD
    begun: float = field(default_factory=time.monotonic)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: Running | None = None
    """Started early, not let go yet."""

    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.begun)

    def run(self) -> int:
        """All parts in their order; 1 where one failed, else 0."""
        try:
            for i, part in enumerate(self.parts):
                self.records[part.name] = self._record(part, self.parts[i + 1 :])
                self._say(part.name)
                self.write()
        finally:
            if self.waiting is not None:
                self.waiting.child.end()
        return int(any(r["status"] == FAILED for r in self.records.values()))

    def _record(self, part: Part, later: Sequence[Part]) -> dict[str, Any]:
        reason = self._why_not(part)
        if reason:
            if self.waiting is not None and self.waiting.part is part:
                self.waiting.child.end()
                self.waiting = None
            return {"status": SKIPPED, "sentence": reason}
        begun = time.monotonic()
        try:
            child = self._started(part)
            child.open_gate(part.gate)
            self._start_ahead(later)
            result = part.result(child.finish(min(LONGEST, self.left()), part.codes))
            sentence = result.pop("sentence", "")
        except Exception as e:  # what a process leaves can lack anything: that fails this part alone
            result, sentence = {}, str(e) if isinstance(e, SdrrlError) else one_line(f"{type(e).__name__}: {e}")
        record = {"status": FAILED if sentence else OK, "seconds": round(time.monotonic() - begun, 1)}
        if sentence:
            record["sentence"] = sentence
        return {**record, "command": command_words(part), **result}

    def _why_not(self, part: Part) -> str:
        """Empty where a part can be begun."""
        if part.skip:
            return part.skip
        lacking = [name for name in part.after if self.records.get(name, {}).get("status") != OK]
        if lacking:
            return f"it needs the part '{lacking[0]}', which did not end well"
        left = self.left()
        return f"{max(left, 0):.0f} s are left, it needs about {part.needs:.0f}" if left < part.needs else ""

    def _started(self, part: Part) -> Child:
        if self.waiting is not None and self.waiting.part is part:
            child, self.waiting = self.waiting.child, None
            return child
        return self._start(part)

    def _start(self, part: Part) -> Child:
        if part.gate is not None:
            part.gate.unlink(missing_ok=True)
        return Child.start(part.command, self.logs / f"{part.name}.log", self.threads, part.environment)

    def _start_ahead(self, later: Sequence[Part]) -> None:
        """The next part that has a gate imports meanwhile; it runs when its turn comes."""
        if not self.ahead or self.waiting is not None:
            return
        coming = next((p for p in later if not p.skip), None)
        if coming is not None and coming.gate is not None and self.left() > coming.needs:
            self.waiting = Running(coming, self._start(coming))

    def _say(self, name: str) -> None:
        r = self.records[name]
        text = f"{name}: {r['status']}" + (f" ({r['seconds']:.0f} s)" if "seconds" in r else "")
        print(clean(f"{text}: {r['sentence']}" if r.get("sentence") else text), file=sys.stderr, flush=True)

    def write(self) -> None:
        """Everything so far as one JSON, without names of people, machines or folders."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        took = round(time.monotonic() - self.begun, 1)
        report = {**provenance(), **self.about, "date": date, "seconds": took}
        report["parts"] = [{"name": name, **record} for name, record in self.records.items()]
        write_json(self.output, clean(report))


def command_words(part: Part) -> str:
    """As a user would type it in the checkout, without the gate, at which it would wait."""
    words = ["-" if word == str(part.gate) else word.replace(f"{REPO_ROOT}{os.sep}", "") for word in part.command]
    settings = [f"{key}={value}" for key, value in part.environment.items()]
    return shlex.join([*settings, "python", *words[1:]])
