"""All that stands in the way of a run, found before its first stage and told in one list.

Each engine checks itself (``Engine.check`` and ``Engine.try_out`` in ``engines/base.py``), so a new engine brings its
own checks; what is asked of every engine of a role, and what is no engine's business, is here.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.chosen_engines import Engines, Problems, Use
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.data.pairs import for_language, for_pair, language_pairs, sources_of
from sdrrl_nemo.data.preflight.forecast import Forecast, gigabytes
from sdrrl_nemo.data.readers import read_examples
from sdrrl_nemo.data.stages.ingest import reading
from sdrrl_nemo.data.text.tokenizer import load_chat


@dataclass
class Report:
    """What a preflight looked at: how many checks in how many seconds, and what is worth knowing."""

    checks: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def preflight(config: PreprocessConfig, engines: Engines, problems: Problems, forecast: Forecast | None) -> Report:
    """Check everything and add what is wrong to ``problems``. Takes seconds: nothing large is loaded, but for one pair
    of texts that the quality estimator scores."""
    report, begin = Report(), time.monotonic()
    for source in sources_of(language_pairs(config)):
        report.checks += 1
        with problems.caught("instructions.path", source):
            _instructions(config, source)
    report.checks += 1
    with problems.caught("model"):
        load_chat(config.model, config.templates)
    for use in engines.uses:
        report.checks += 1
        with problems.caught(use.key, use.scope):
            _engine(config, use)
    _try_out(config, engines, problems, report)
    if forecast is not None:
        report.checks += 1
        with problems.caught("output_dir"):
            _disk(Path(config.output_dir), forecast)
    report.seconds = time.monotonic() - begin
    report.notes += [
        f"dictionary {row['name']}: {n} entries of {file} cannot be used (phrases, broken lines)"
        for row in engines.table()
        for file, n in row.get("skipped", {}).items()
    ]
    return report


def require_no_problem(problems: Problems) -> None:
    """Print all problems, one a line, and raise an SdrrlError that counts them; a single one is the error itself."""
    sentences = problems.sentences()
    if len(sentences) == 1:
        raise SdrrlError(sentences[0])
    if sentences:
        for number, sentence in enumerate(sentences, 1):
            print(f"problem {number}: {sentence}", file=sys.stderr)
        raise SdrrlError(f"{len(sentences)} problems, listed above; nothing was started")


def _instructions(config: PreprocessConfig, source: str) -> None:
    """A file must be there and give a record; a hub's data set is left to its stage, which may have to fetch it."""
    section = for_language(config, source).instructions
    if section.path.startswith("hub:"):
        return
    if not Path(section.path).exists():
        raise SdrrlError(f"{section.path}: no such file; set instructions.path to an instruction set")
    next(iter(read_examples(section.path, reading(section, config.turns))), None)


def _engine(config: PreprocessConfig, use: Use) -> None:
    """What the engine says itself, and for a corpus whether it has enough pairs."""
    for way in use.ways:
        use.engine.check(*way)
    if use.role == "corpus":
        (source, target) = use.ways[0]
        wanted = for_pair(config, (source, target)).parallel
        needed = wanted.train_pairs + wanted.held_out_pairs
        found = sum(1 for _ in islice(use.engine.pairs(source, target), needed))
        if found < needed:
            raise SdrrlError(
                f"the parallel corpus for {use.scope} has {found} pairs, where "
                f"parallel.train_pairs={wanted.train_pairs} and parallel.held_out_pairs={wanted.held_out_pairs} ask "
                f"for {needed}; lower them"
            )


def _try_out(config: PreprocessConfig, engines: Engines, problems: Problems, report: Report) -> None:
    """Each engine once. Workers of a Ray cluster run elsewhere: what is true of this machine says nothing of theirs."""
    if config.execution.backend == "ray" and config.execution.address:
        report.notes.append("servers, devices and the quality estimator are not tried: the workers run elsewhere")
        return
    tried: dict[int, Use] = {}
    for use in engines.uses:
        tried.setdefault(id(use.engine), use)
    for use in tried.values():
        report.checks += 1
        with problems.caught(use.key):
            use.engine.try_out()


def _disk(folder: Path, forecast: Forecast) -> None:
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, forecast.disk_bytes
    if needed > free:
        raise SdrrlError(
            f"{folder}: {gigabytes(free)} are free, and the run will write about {gigabytes(needed)}; free some, or "
            "set output_dir to another disk"
        )
