"""A whole study: lock, shared preprocessing, the stages that are asked for, then results and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdrrl_nemo.common.config import to_yaml
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, write_json
from sdrrl_nemo.data.execution.stage_runner import remove_leftovers
from sdrrl_nemo.data.output_folder import output_lock
from sdrrl_nemo.study.config import StudyConfig
from sdrrl_nemo.study.execute import Executor
from sdrrl_nemo.study.plan import data_dir, plan

SHARED = "stages"


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


def run_stages(config: StudyConfig, config_path: str, overrides: Sequence[str], kinds: Sequence[str]) -> None:
    """Run all stages of ``kinds`` that are not done."""
    root = Path(config.work_dir)
    with output_lock(root):
        share_stages(config)
        with atomic_write(root / "config.yaml") as f:
            f.write(to_yaml(config))
        stages = [s for s in plan(config, config_path, overrides) if s.kind in kinds]
        left = Executor(root, config.parallel, config.threads).run(stages)
    print(f"{root}: {len(stages)} stages, {len(stages) - left} were done before", flush=True)


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
