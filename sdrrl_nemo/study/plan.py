"""A study as stages with needs; each is one run of a tool of this repository and leaves a marker when it is done.

data/<method>              tools/preprocess_sdrrl.py; all methods share one folder of finished preprocessing stages,
                           which are named by content: what two methods have in common is made once
choose_lr/<method>-<k>     recipes/sdrrl_pretrain.py, a short run with the k-th learning rate of the grid and no
                           checkpoint; learning_rates.py takes the best of a method
train/<method>-<n>         recipes/sdrrl_pretrain.py
export/<method>-<n>        tools/export_hf.py, then the checkpoints are removed
measure/<method>-<n>       tools/study.py --stage; then the export is removed (``keep: nothing``)
measure/base               the untrained model, once
export, measure/<method>-1@<step>   the same on the way, of runs whose off-target rate is followed (``tracking``)
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key, read_json, read_jsonl, write_json
from sdrrl_nemo.data.config import PreprocessConfig
from sdrrl_nemo.study import learning_rates
from sdrrl_nemo.study.config import BASE, StudyConfig, benchmark_config, training_config, training_overrides
from sdrrl_nemo.train.config import checkpoint_name

KINDS = ("data", "choose_lr", "train", "export", "measure")
MEASURES = "measures.json"
"""What a measured run leaves in its folder of scores."""
SECONDS = {"data": 900.0, "export": 20.0, "measure": 2400.0, "measure@": 300.0}
SECONDS_A_STEP = 50.0
"""Rough cost of a stage, or of a step of training, until one has been timed: on one CPU core that others use too.
Only forecasts use them."""


@dataclass(frozen=True)
class Run:
    """One trained model, or the base model (``number`` 0): where its parts lie."""

    method: str
    number: int
    root: Path
    step: int | None = None
    """None: its end."""

    @property
    def name(self) -> str:
        """``sdrrl-1``, or ``base``; ``sdrrl-1@4`` on the way."""
        on_the_way = "" if self.step is None else f"@{self.step}"
        return f"{self.method}-{self.number}{on_the_way}" if self.number else BASE

    @property
    def run_dir(self) -> Path:
        """Training run: metrics, configuration, checkpoints until they are exported."""
        return self.root / "runs" / f"{self.method}-{self.number}"

    @property
    def export(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.run_dir / ("hf" if self.step is None else f"hf-{checkpoint_name(self.step)}")

    @property
    def scores(self) -> Path:
        """Folder of its measures; ``measures.json`` is written last."""
        return self.root / "scores" / self.name

    def at(self, step: int) -> Run:
        """The same run after ``step`` steps: ``sdrrl-1@4``."""
        return dataclasses.replace(self, step=step)


@dataclass(frozen=True)
class Stage:
    """One step of the study. ``script``: path and arguments of the tool; ``key`` names everything that was asked for;
    ``alone``: nothing runs beside it; ``remove``: what is deleted once it is done; ``steps`` and ``run_dir``: of a
    training."""

    name: str
    script: tuple[str, ...]
    key: str
    needs: tuple[str, ...] = ()
    alone: bool = False
    remove: tuple[Path, ...] = field(default=())
    steps: int = 0
    run_dir: Path | None = None

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        return self.name.split("/", maxsplit=1)[0]

    def steps_left(self) -> int:
        """Of a training whose tool has ended well: after a signal and a checkpoint it does so too."""
        if self.run_dir is None or (self.run_dir / "finished.json").is_file():
            return 0  # a run that keeps no checkpoint, as one that tries a learning rate, leaves no such file
        rows = metrics(self.run_dir)
        return self.steps - (rows[-1]["step"] if rows else 0)

    @property
    def timed_as(self) -> str:
        """Stages that take about as long as each other: a model on the way is asked less than one at its end."""
        return f"{self.kind}@" if "@" in self.name else self.kind


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl, one a step: the last of each, should a resumed run have written one twice."""
    path = run_dir / "metrics.jsonl"
    steps = {row["step"]: row for _, row in read_jsonl(path)} if path.is_file() else {}
    return [steps[k] for k in sorted(steps)]


def data_dir(config: StudyConfig, method: str) -> Path:
    """Output of the preprocessing of one method."""
    return Path(config.work_dir) / "data" / method


def runs(config: StudyConfig) -> list[Run]:
    """The base model, then run 1 of every method, run 2 of every method, ...: a stopped study has whole rounds. The
    reference method comes first, since all others are compared with it."""
    root = Path(config.work_dir)
    methods = sorted(config.methods, key=lambda m: m.name != config.reference)
    trained = [Run(m.name, n, root) for n in range(1, config.seeds + 1) for m in methods]
    return [Run(BASE, 0, root), *trained]


def tracked(config: StudyConfig, run: Run) -> bool:
    """Whether the off-target rate of this run is followed: run 1 of some methods."""
    return run.number == 1 and run.method in config.tracking.methods


def _on_the_way(config: StudyConfig, run: Run) -> list[Run]:
    """The run at the steps it is asked at before its end."""
    if not tracked(config, run):
        return []
    max_steps = training_config(config, _training_overrides(config, run)).trainer.max_steps
    return [run.at(step) for step in range(config.tracking.every, max_steps, config.tracking.every)]


def models(config: StudyConfig) -> list[Run]:
    """Everything that is measured: ``runs``, and the tracked ones on the way."""
    return [model for run in runs(config) for model in (*_on_the_way(config, run), run)]


def _training_overrides(config: StudyConfig, run: Run) -> list[str]:
    """Of one run: with the learning rate that was chosen for its method, once that is known."""
    source = data_dir(config, run.method)
    chosen = learning_rates.choice(config, run.method, Markers(config.work_dir).root)
    rate = [] if chosen is None else [f"optim.lr={chosen['lr']}"]
    return [*training_overrides(config, source, run.run_dir, run.number, tracked(config, run)), *rate]


def plan(config: StudyConfig, config_path: str, overrides: Sequence[str]) -> list[Stage]:
    """All stages in order; those of a run follow each other, so that little lies on disk at a time."""
    stages = {m.name: _data_stage(config, m.name) for m in config.methods}
    # The reference method comes first: it alone asks the model and translates answers of both kinds.
    order = sorted(stages, key=lambda name: name != config.reference)
    out = [stages[name] for name in order]
    tried = {
        name: [_trial_stage(config, t, stages[name]) for t in learning_rates.trials(config, name)] for name in order
    }
    out += [stage for name in order for stage in tried[name]]
    measures = _measure_settings(config)
    held = stages[config.reference]
    for run in runs(config):
        needs = [s.name for s in (held, *tried.get(run.method, ()))] if config.learning_rates.grid else []
        out += _run_stages(config, run, stages, held, measures, [config_path, *overrides], needs)
    return out


def _trial_stage(config: StudyConfig, trial: learning_rates.Trial, data: Stage) -> Stage:
    """A short run with one learning rate of the grid."""
    overrides = learning_rates.overrides(config, trial, data_dir(config, trial.method))
    key = content_key("choose_lr", data.key, dataclasses.asdict(training_config(config, overrides)))
    script = ("recipes/sdrrl_pretrain.py", "--config", config.training, *overrides)
    return Stage(trial.stage, script, key, (data.name,), steps=config.learning_rates.steps, run_dir=trial.run_dir)


def _data_stage(config: StudyConfig, method: str) -> Stage:
    path, overrides = config.method(method).data, tuple(_data_overrides(config, method))
    script = ("tools/preprocess_sdrrl.py", "--config", path, *overrides)
    return Stage(f"data/{method}", script, _data_key(path, overrides), alone=True)


def _data_overrides(config: StudyConfig, method: str) -> list[str]:
    own = config.method(method).overrides
    return [*config.data_overrides, *own, f"output_dir={data_dir(config, method)}", f"model={config.base_model}"]


@lru_cache(maxsize=64)
def _data_key(path: str, overrides: tuple[str, ...]) -> str:
    return content_key("data", dataclasses.asdict(load_config(PreprocessConfig, path, list(overrides))))


def _measure_settings(config: StudyConfig) -> list[Any]:
    benchmarks = benchmark_config(config)
    return [
        dataclasses.asdict(config.held_out),
        dataclasses.asdict(benchmarks) if benchmarks else None,
        config.source_language,
        config.target_language,
        config.seed,
        config.device,
    ]


def _run_stages(
    config: StudyConfig,
    run: Run,
    data: dict[str, Stage],
    held: Stage,
    measures: list[Any],
    call: list[str],
    needs: Sequence[str] = (),
) -> list[Stage]:
    """Stages of one run. ``call``: configuration file and overrides of this study, for its own stages; ``needs``: of
    the training, beside its data."""

    def measuring(name: str) -> tuple[str, ...]:
        return ("tools/study.py", "--config", call[0], "--stage", name, *call[1:])

    if run.method == BASE:
        name = f"measure/{run.name}"
        key = content_key("measure", held.key, config.base_model, measures)
        return [Stage(name, measuring(name), key, (held.name,))]
    overrides = _training_overrides(config, run)
    training = ("recipes/sdrrl_pretrain.py", "--config", config.training)
    settings = training_config(config, overrides)
    key = content_key("train", data[run.method].key, dataclasses.asdict(settings))
    steps = settings.trainer.max_steps
    needed = (f"data/{run.method}", *needs)
    out = [Stage(f"train/{run.name}", (*training, *overrides), key, needed, steps=steps, run_dir=run.run_dir)]
    exports: list[str] = []
    for model in (*_on_the_way(config, run), run):
        name = f"measure/{model.name}"
        exporting = ["tools/export_hf.py", "--run", str(run.run_dir), "--output", str(model.export)]
        if model.step is not None:
            exporting += ["--checkpoint", str(run.run_dir / "checkpoints" / checkpoint_name(model.step))]
        out += [
            Stage(
                f"export/{model.name}",
                tuple(exporting),
                content_key("export", key, model.step),
                (f"train/{run.name}", *exports),  # the last one takes the checkpoints away
                remove=(run.run_dir / "checkpoints",) if model is run else (),
            ),
            Stage(
                name,
                measuring(name),
                content_key("measure", held.key, key, measures, model.step),
                (f"export/{model.name}", held.name),
                remove=() if config.keep == "exports" else (model.export,),
            ),
        ]
        exports.append(f"export/{model.name}")
    return out


class Markers:
    """``<work_dir>/done/<stage>.json``: written after a stage's tool has ended well, before its leftovers go."""

    def __init__(self, work_dir: str | Path) -> None:
        self.root = Path(work_dir) / "done"

    def path(self, name: str) -> Path:
        """Where the marker of a stage lies or will lie."""
        return self.root / f"{name}.json"

    def done(self, stage: Stage) -> bool:
        """Whether this very stage has been finished; SdrrlError when another one of its name has."""
        path = self.path(stage.name)
        if not path.is_file():
            return False
        if read_json(path).get("key") != stage.key:
            raise SdrrlError(
                f"{path}: {stage.name} was done with other settings; choose another work_dir, or remove this file "
                "(and the stage's output) to do it again"
            )
        return True

    def seconds(self, name: str) -> float | None:
        """How long a finished stage took; None: it is not finished."""
        path = self.path(name)
        return float(read_json(path)["seconds"]) if path.is_file() else None

    def mark(self, stage: Stage, seconds: float) -> None:
        """Remember that ``stage`` is done, then remove what nothing needs any more."""
        write_json(
            self.path(stage.name),
            {"stage": stage.name, "key": stage.key, "seconds": round(seconds, 1), "finished": time.time()},
        )
        remove(stage)


def remove(stage: Stage) -> None:
    """Delete the leftovers of a finished stage; what is gone already is fine."""
    for path in stage.remove:
        if path.is_dir():
            shutil.rmtree(path)


class Times:
    """Seconds of stages that were timed -> what others will take."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._of_steps = [0.0, 0.0]

    def add(self, stage: Stage, seconds: float) -> None:
        """A stage took so long."""
        self._seconds.setdefault(stage.timed_as, []).append(seconds)
        if stage.steps:
            self._of_steps[0] += seconds
            self._of_steps[1] += stage.steps

    def known(self, stage: Stage) -> bool:
        """Whether one like it was timed."""
        return bool(self._of_steps[1] if stage.steps else self._seconds.get(stage.timed_as))

    def estimate(self, stage: Stage) -> float:
        """Seconds of a stage: of a training by its steps, of another the mean of those like it; else a rough guess."""
        if stage.steps:
            return stage.steps * (self._of_steps[0] / self._of_steps[1] if self._of_steps[1] else SECONDS_A_STEP)
        times = self._seconds.get(stage.timed_as, [])
        if not times:
            return SECONDS.get(stage.timed_as, SECONDS.get(stage.kind, SECONDS_A_STEP))  # a training of unknown length
        return math.fsum(times) / len(times)
