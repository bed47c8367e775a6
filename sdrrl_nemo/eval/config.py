"""Typed configuration of tools/evaluate.py; every key of configs/eval/*.yaml is here."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.precision import AUTO
from sdrrl_nemo.data.config import EngineConfig
from sdrrl_nemo.data.text.languages import language

DTYPES = ("float32", "bfloat16", AUTO)


@dataclass
class LossConfig:
    """Held-out loss, always in fp32."""

    questions: int = 40
    """First N rows of questions.jsonl; 0 = all."""
    pairs: int = 100
    """First N rows of pairs.jsonl, scored in both directions; 0 = all."""
    batch_tokens: int = 2048
    """Samples x longest length of one forward pass; changes speed and memory, not the result (1e-5)."""


@dataclass
class GenerationConfig:
    """Greedy decoding of answers and translations."""

    questions: int = 40
    """First N questions, asked in both languages; 0 = all."""
    pairs: int = 40
    """First N pairs, translated in both directions; 0 = all."""
    max_new_tokens: int = 64
    batch_size: int = 40
    dtype: str = AUTO
    """float32, bfloat16, or auto: bfloat16 where it is native (GPU, AVX512-BF16, AMX), else float32."""


@dataclass
class OffTargetConfig:
    """When an answer is long enough for its language to be judged."""

    min_letters: int = 20


@dataclass
class AlignmentConfig:
    """Hidden states of parallel questions: retrieval, cosine and the t-SNE picture."""

    questions: int = 0
    """First N questions; 0 = all."""
    perplexity: float = 15.0
    """t-SNE perplexity; must be below the number of points."""


@dataclass
class GoalsConfig:
    """What the summary at the top of the report checks."""

    source_loss_tolerance: float = 0.02
    """Largest accepted relative rise of the source-language loss."""
    bootstrap_samples: int = 1000
    """Paired bootstrap resamples behind each 95 % interval."""


@dataclass
class EvalConfig:
    """Compare ``base_model`` with ``trained_model`` (Hugging Face folders) on held-out data."""

    base_model: str = MISSING
    trained_model: str = MISSING
    data_dir: str = MISSING
    """Output of tools/preprocess_sdrrl.py: heldout/<source>-<target>/*.jsonl, stats.json."""
    output_dir: str = MISSING
    run_dir: str | None = None
    """Training run for its loss curves and configuration; optional."""
    source_language: str = "eng"
    target_language: str = MISSING
    title: str = "SDRRL evaluation"
    plugins: list[str] = field(default_factory=list)
    """Python modules to import first; they may register language identifiers of their own."""
    seed: int = 1234
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's own choice."""
    bleu_tokenize: str = "13a"
    """sacreBLEU tokeniser (``sacrebleu --help`` lists them); 13a suits languages with spaces."""
    samples: int = 6
    """Answers and translations shown side by side in the report, each."""
    loss: LossConfig = field(default_factory=LossConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    language_identifier: EngineConfig = field(default_factory=lambda: EngineConfig(name="cld3"))
    off_target: OffTargetConfig = field(default_factory=OffTargetConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    goals: GoalsConfig = field(default_factory=GoalsConfig)


def check(config: EvalConfig) -> None:
    """SdrrlError for a value that no later stage could name as clearly."""
    language(config.source_language)
    language(config.target_language)
    if config.source_language == config.target_language:
        raise SdrrlError(f"source_language and target_language are both '{config.target_language}'; they must differ")
    if config.generation.dtype not in DTYPES:
        raise SdrrlError(
            f"unknown generation.dtype '{config.generation.dtype}'{suggest(config.generation.dtype, DTYPES)}"
        )
    if config.device not in ("auto", "cpu", "cuda"):
        raise SdrrlError(f"unknown device '{config.device}'{suggest(config.device, ('auto', 'cpu', 'cuda'))}")
    at_least = {
        "loss.questions": (config.loss.questions, 0),
        "loss.pairs": (config.loss.pairs, 0),
        "loss.batch_tokens": (config.loss.batch_tokens, 1),
        "generation.questions": (config.generation.questions, 0),
        "generation.pairs": (config.generation.pairs, 0),
        "generation.max_new_tokens": (config.generation.max_new_tokens, 1),
        "generation.batch_size": (config.generation.batch_size, 1),
        "alignment.questions": (config.alignment.questions, 0),
        "goals.bootstrap_samples": (config.goals.bootstrap_samples, 100),
        "off_target.min_letters": (config.off_target.min_letters, 1),
        "samples": (config.samples, 0),
        "threads": (config.threads, 0),
    }
    for key, (value, least) in at_least.items():
        if value < least:
            raise SdrrlError(f"{key} is {value}; it must be at least {least}")
