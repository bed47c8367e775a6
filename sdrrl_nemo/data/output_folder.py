"""The folder that one preprocessing run writes: one run at a time, and nothing is done twice."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json, sha256_file
from sdrrl_nemo.data.config import PreprocessConfig, without_later
from sdrrl_nemo.data.execution.stage_runner import fingerprint
from sdrrl_nemo.data.pairs import for_language, language_pairs, sources_of
from sdrrl_nemo.data.readers import content_of
from sdrrl_nemo.data.text.tokenizer import check_model_folder

FORMAT = "sdrrl-transfer-set/3"
"""3: samples are the ids of the rendered conversation; a folder of format 2 keeps its stages but for the last."""


@contextlib.contextmanager
def output_lock(directory: Path) -> Iterator[None]:
    """Only one run at a time may write ``directory``; the kernel lets go of the lock when a run dies."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SdrrlError(
                f"{directory}: another run is writing here; wait for it or choose another output_dir"
            ) from None
        yield


def request_fingerprint(config: PreprocessConfig, engine_files: Mapping[str, str]) -> str:
    """What was asked for: settings, bytes of the instruction set, of the model folder's files and of the files that the
    engines read (``Engines.contents``); no engine is loaded."""
    folder = check_model_folder(config.model)
    # Weights are told by their size: hashing gigabytes would cost more than a finished run's whole second start, and
    # the tokenizer's files beside them, which decide every sample, are hashed.
    model = {
        p.name: p.stat().st_size if p.stat().st_size > 1 << 24 else sha256_file(p)
        for p in sorted(folder.iterdir())
        if p.is_file()
    }
    sources = sources_of(language_pairs(config))
    instructions = [content_of(for_language(config, source).instructions.path) for source in sources]
    asked = without_later(config)
    del asked["output_dir"], asked["execution"]
    template = Path(config.templates.chat_template)
    named = [sha256_file(template)] if template.is_file() else []
    read = [dict(engine_files)] if engine_files else []
    return fingerprint([FORMAT, asked, instructions, model, *named, *read])


def finished(config: PreprocessConfig, engine_files: Callable[[], Mapping[str, str]]) -> dict[str, Any] | None:
    """stats.json of a finished run of the same request whose files are all whole, else None; so too where an input is
    not there any more, which the preflight tells."""
    directory = Path(config.output_dir)
    path = directory / "stats.json"
    if not path.is_file():
        return None
    stats: dict[str, Any] = read_json(path)
    try:
        request = request_fingerprint(config, engine_files())
    except SdrrlError:
        return None
    if stats.get("request") != request:
        return None
    whole = all((directory / n).is_file() and sha256_file(directory / n) == s for n, s in stats["files"].items())
    return stats if whole else None
