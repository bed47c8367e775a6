"""Typed configuration of tools/study.py; every key of configs/study/*.yaml is here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from omegaconf import MISSING

from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.seeding import derive_seed
from sdrrl_nemo.data.config import EngineConfig
from sdrrl_nemo.eval.config import (
    AlignmentConfig,
    BenchmarkConfig,
    EvalConfig,
    GenerationConfig,
    LossConfig,
    OffTargetConfig,
)
from sdrrl_nemo.train.config import RunConfig

BASE = "base"
"""Name of the untrained base model in the tables."""
KEEP = ("nothing", "exports")
DEVICES = ("cpu", "cuda")
MAX_CHECKPOINTS = 1000
"""A tracked run keeps all of its checkpoints until they are exported."""
MAX_SEED = 2**31
"""Training seeds stay below this: NeMo hands them to NumPy, which takes 32 bits."""


@dataclass
class MethodConfig:
    """One row of the comparison."""

    name: str = MISSING
    """Lower-case letters, digits and underscores; names directories."""
    title: str = MISSING
    data: str = MISSING
    """configs/data/*.yaml: what ``tools/preprocess_sdrrl.py`` makes its transfer set from."""
    overrides: list[str] = field(default_factory=list)
    """``key=value`` for its preprocessing."""
    published: str = ""
    """Its row in the paper's tables as sdrrl_nemo/eval/reference names it; empty: none."""
    ablation: bool = False
    """A row of Table 6, compared with the full method only."""


@dataclass
class HeldOutConfig:
    """Sizes of the held-out measures (configs/eval/*.yaml has the same keys)."""

    loss: LossConfig = field(default_factory=LossConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    backend: EngineConfig = field(default_factory=lambda: EngineConfig(name="transformers"))
    min_letters: int = 20
    language_identifier: EngineConfig = field(default_factory=lambda: EngineConfig(name="cld3"))


@dataclass
class TrackingConfig:
    """Off-target rate of held-out answers over training (the paper's Fig. 3): run 1 of some methods."""

    methods: list[str] = field(default_factory=list)
    every: int = 2
    """Steps between the checkpoints that are exported and asked; start and end are measured anyway."""


@dataclass
class LearningRateConfig:
    """How the learning rate of each method is chosen: a short run with each rate of one grid, the same for all methods;
    the one with the lowest held-out loss is taken (data: packing.validation_fraction, no question of the tests)."""

    grid: list[float] = field(default_factory=list)
    """Empty: all methods take optim.lr of the training configuration."""
    steps: int = 15
    """Length of each short run; its schedule ends there."""


@dataclass
class StatisticsConfig:
    """Paired bootstrap of each method against the reference method."""

    resamples: int = 50000
    """Few would bound every p value from below; Holm's correction multiplies it by the number of tests."""
    level: float = 0.05


@dataclass
class StudyConfig:
    """Everything that ``tools/study.py`` reads."""

    title: str = MISSING
    work_dir: str = MISSING
    """Data, runs, evaluations, markers and logs; a stopped study continues here."""
    output: str = MISSING
    """Path without suffix: ``<output>.json`` and ``<output>.html`` are written."""
    base_model: str = MISSING
    """Hugging Face folder that every method starts from."""
    source_language: str = "eng"
    target_language: str = "por"
    seed: int = 1234
    """Root of every seed of the study."""
    seeds: int = 3
    """Training runs of each method; they differ in the order of the data and so in what they see of it."""
    reference: str = "sdrrl"
    """Name of the method that the others are compared with."""
    methods: list[MethodConfig] = field(default_factory=list)
    data_overrides: list[str] = field(default_factory=list)
    """``key=value`` for the preprocessing of every method."""
    training: str = MISSING
    """YAML of recipes/sdrrl_pretrain.py; run_dir, seed, model.hf_path and data.path are set for each run."""
    benchmarks: str = ""
    """YAML of the benchmark runner; empty: held-out measures only."""
    benchmarks_licence: str = "unstated"
    """Licence of the benchmarks' items, for the report."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    learning_rates: LearningRateConfig = field(default_factory=LearningRateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    statistics: StatisticsConfig = field(default_factory=StatisticsConfig)
    parallel: int = 2
    """Runs trained, exported or measured side by side, ``threads`` each."""
    threads: int = 1
    device: str = "cpu"
    """``cpu``, or ``cuda``: one process trains all runs on the GPU; with ``parallel`` of 2 or more a second one
    measures beside it."""
    keep: str = "nothing"
    """``exports``: the trained models stay under work_dir; ``nothing``: removed once they are measured."""
    samples: int = 4
    """Answers of each kind shown side by side in the report."""

    def method(self, name: str) -> MethodConfig:
        """The method of that name."""
        return next(m for m in self.methods if m.name == name)

    def training_seed(self, number: int) -> int:
        """Seed of the runs ``number`` (from 1) of all methods: the same order of rows where the data is the same."""
        return derive_seed(self.seed, "study", "training", number) % MAX_SEED


def check(config: StudyConfig) -> None:
    """SdrrlError for what types cannot say, before anything runs."""
    names = [m.name for m in config.methods]
    if config.reference not in names:
        raise SdrrlError(f"reference: no method is named '{config.reference}'{suggest(config.reference, names)}")
    for name in names:
        if not name.replace("_", "").isalnum() or name != name.lower() or name == BASE:
            raise SdrrlError(
                f"methods: name '{name}' must be lower-case letters, digits and underscores, and not '{BASE}'"
            )
        if names.count(name) > 1:
            raise SdrrlError(f"methods: '{name}' is named twice")
    for name in config.tracking.methods:
        if name not in names:
            raise SdrrlError(f"tracking.methods: no method is named '{name}'{suggest(name, names)}")
    for key, chosen, choices in (("keep", config.keep, KEEP), ("device", config.device, DEVICES)):
        if chosen not in choices:
            raise SdrrlError(f"{key}: '{chosen}' is not one of {', '.join(choices)}")
    for rate in (grid := config.learning_rates.grid):
        if not rate > 0 or grid.count(rate) > 1:
            raise SdrrlError(f"learning_rates.grid: {rate} must be above 0 and stand there once")
    at_least = {
        "seeds": (config.seeds, 1),
        "parallel": (config.parallel, 1),
        "threads": (config.threads, 1),
        "samples": (config.samples, 0),
        "learning_rates.steps": (config.learning_rates.steps, 1),
        "tracking.every": (config.tracking.every, 1),
        "statistics.resamples": (config.statistics.resamples, 100),
    }
    for key, (value, least) in at_least.items():
        if value < least:
            raise SdrrlError(f"{key} is {value}; it must be at least {least}")
    if not 0 < config.statistics.level < 1:
        raise SdrrlError(f"statistics.level is {config.statistics.level}; it must lie between 0 and 1")
    for method in config.methods:
        if not Path(method.data).is_file():
            raise SdrrlError(f"methods.{method.name}.data: {method.data}: no such configuration file")


def training_config(config: StudyConfig, overrides: list[str]) -> RunConfig:
    """One training run; ``overrides``: what ``training_overrides`` says of it. Not to be changed: it is kept."""
    return _training_config(config.training, tuple(overrides))


@lru_cache(maxsize=256)
def _training_config(path: str, overrides: tuple[str, ...]) -> RunConfig:
    return load_config(RunConfig, path, list(overrides))  # a plan asks three times for each run


def training_overrides(config: StudyConfig, data: Path, run_dir: Path, number: int, tracked: bool) -> list[str]:
    """What differs between the runs, as ``key=value``; a tracked run keeps a checkpoint every so many steps."""
    saving = [f"trainer.save_every={config.tracking.every}", f"trainer.keep_checkpoints={MAX_CHECKPOINTS}"]
    return [
        f"run_dir={run_dir}",
        f"seed={config.training_seed(number)}",
        f"model.hf_path={config.base_model}",
        f"data.path={data / 'packed'}",
        f"trainer.num_threads={config.threads}",
        f"trainer.accelerator={'gpu' if config.device == 'cuda' else 'cpu'}",
        *(saving if tracked else []),
    ]


def benchmark_config(config: StudyConfig) -> BenchmarkConfig | None:
    """The benchmarks every model is measured on; None where the study has none."""
    if not config.benchmarks:
        return None
    return load_config(
        BenchmarkConfig,
        config.benchmarks,
        [f"threads={config.threads}", f"source_language={config.source_language}", f"device={config.device}"],
    )


def held_out_config(config: StudyConfig, model: str, data: Path, output: Path) -> EvalConfig:
    """The held-out measures of one model, in the terms of tools/evaluate.py."""
    h = config.held_out
    return EvalConfig(
        base_model=model,
        trained_model=model,
        data_dir=str(data),
        output_dir=str(output),
        source_language=config.source_language,
        target_language=config.target_language,
        title=config.title,
        seed=config.seed,
        backend=h.backend,
        device=config.device,
        threads=config.threads,
        loss=h.loss,
        generation=h.generation,
        alignment=h.alignment,
        language_identifier=h.language_identifier,
        off_target=OffTargetConfig(h.min_letters),
    )
