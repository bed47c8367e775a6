"""A whole study: lock, shared preprocessing, the stages that are asked for, then results and page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.config import to_yaml
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, write_json
from sdrrl_nemo.data.execution.stage_runner import remove_leftovers
from sdrrl_nemo.data.output_folder import output_lock
from sdrrl_nemo.study.config import StudyConfig, benchmark_config
from sdrrl_nemo.study.execute import Executor
from sdrrl_nemo.study.plan import Markers, Times, data_dir, plan

SHARED = "stages"
BEFORE_TRAINING = ("data", "choose_lr")


def share_stages(config: StudyConfig) -> None:
    """Let the preprocessing of all methods keep its finished stages in one folder.

    A stage's directory is named by its settings, its engine and its input
    (sdrrl_nemo/data/execution/stage_runner.py), so methods that ask for the same generation or translation find it
    done. Data stages run alone: nobody else writes there.
    """
    shared = Path(config.work_dir) / "data" / SHARED
    shared.mkdir(parents=True, exist_ok=True)
    remove_leftovers(shared)
    for method in config.methods:
        link = data_dir(config, method.name) / SHARED
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() and link.exists():
            raise SdrrlError(f"{link}: is there already and no link to {shared}; choose another work_dir")
        if not link.is_symlink():
            link.symlink_to(Path("..") / SHARED)


def run_stages(
    config: StudyConfig, config_path: str, overrides: Sequence[str], kinds: Sequence[str], one_process: bool = False
) -> None:
    """Run all stages of ``kinds`` that are not done; ``one_process``: on a CPU too (a GPU has no other way)."""
    root = Path(config.work_dir)
    if config.device == "cuda":
        from sdrrl_nemo.eval.model_folder import choose_device  # it imports torch

        choose_device(config.device)  # refuses before anything is done
    if "measure" in kinds and (benchmarks := benchmark_config(config)) is not None:
        from sdrrl_nemo.eval import evaluation  # it imports torch

        evaluation.plan(benchmarks)  # reads the data and says what a scorer lacks, hours before a model is measured
    how = "spawn" if config.device == "cuda" else "forkserver" if one_process else ""
    with output_lock(root):
        share_stages(config)
        with atomic_write(root / "config.yaml") as f:
            f.write(to_yaml(config))
        executor = Executor(root, config.parallel, config.threads, how)
        try:
            # the settings of a training are known once its learning rate is chosen
            first = [s for s in plan(config, config_path, overrides) if s.kind in kinds and s.kind in BEFORE_TRAINING]
            left = executor.run(first)
            rest = [s for s in plan(config, config_path, overrides) if s.kind in kinds and s not in first]
            left += executor.run(rest)
        finally:
            executor.close()
    stages = [*first, *rest]
    print(f"{root}: {len(stages)} stages, {len(stages) - left} were done before", flush=True)


def forecast(config: StudyConfig, config_path: str, overrides: Sequence[str], kinds: Sequence[str]) -> str:
    """What ``run_stages`` would do and about how long it would take, by the stages that were timed here; a line each
    kind of stage that is left. Runs nothing."""
    stages = [s for s in plan(config, config_path, overrides) if s.kind in kinds]
    markers, times = Markers(config.work_dir), Times()
    for stage in stages:
        if (seconds := markers.seconds(stage.name)) is not None:
            times.add(stage, seconds)
    left = [s for s in stages if markers.seconds(s.name) is None]
    lines, wall, guessed = [], 0.0, False
    for kind in dict.fromkeys(s.timed_as for s in left):
        those = [s for s in left if s.timed_as == kind]
        seconds = math.fsum(times.estimate(s) for s in those)
        wall += seconds / (1 if those[0].alone else config.parallel)
        guess = not times.known(those[0])
        guessed |= guess
        lines.append(f"  {kind:<10} {len(those):>4} x {clock(seconds / len(those))}{' (a guess)' if guess else ''}")
    about = f", about {clock(wall)} with {config.parallel} side by side" if left else ""
    by = "; nothing like some of them was timed in this study yet" if guessed else ""
    return "\n".join([f"{config.work_dir}: {len(left)} of {len(stages)} stages are left{about}{by}", *lines])


def clock(seconds: float) -> str:
    """``1 h 05 min``, ``12 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def write_results(config: StudyConfig, quiet: bool = False) -> None:
    """``<output>.json`` and ``<output>.html`` of what is measured; nothing when that is less than two models."""
    from sdrrl_nemo.report.study import summary, write_study_report
    from sdrrl_nemo.study.results import collect

    document = collect(config)
    if document is None:
        if not quiet:
            print(f"{config.work_dir}: nothing to compare yet: no trained model is measured")
        return
    output = Path(config.output)
    write_json(output.with_name(output.name + ".json"), document)
    page = write_study_report(document, output.with_name(output.name + ".html"))
    if not quiet:
        print(summary(document))
        print(f"report: {page}")
