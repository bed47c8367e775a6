"""Typed configuration of the evaluation; every key of configs/eval/*.yaml is here.

One framework measures, two forms of YAML ask it: ``EvalConfig`` compares a base model with a trained one on held-out
data, ``BenchmarkConfig`` (``kind: benchmarks``) measures any number of models on the paper's benchmarks. What the
framework reads has one name in both; where the held-out form has no such key, it says so in a class variable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

import yaml
from omegaconf import MISSING

from sdrrl_nemo.common.errors import SdrrlError, suggest
from sdrrl_nemo.common.precision import AUTO
from sdrrl_nemo.data.config import EngineConfig
from sdrrl_nemo.data.engines.quality.comet import PYTHON
from sdrrl_nemo.data.text.chat_template import TemplateConfig
from sdrrl_nemo.data.text.languages import language

KIND = "benchmarks"
"""``kind`` of a YAML file that asks for the benchmarks."""
NAMES = ("belebele", "belebele_letter", "mkqa", "xlsum", "flores", "off_target", "alignment")
"""What is measured where ``names`` says nothing; any other registered suite can be named there."""
HELD_OUT_NAMES = ("held_out_loss", "held_out_alignment", "held_out_answers", "held_out_translation")
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda")
BELEBELE_PROMPTS = ("paper", "lm_eval")
FETCHED = (
    "belebele", "flores", "xlsum", "mkqa", "bactrian", "flores_plus", "include", "global_mmlu", "global_mmlu_lite",
    "mgsm", "m_arenahard", "language_confusion",
)  # fmt: skip
"""Data sets that ``download`` fetches, by their benchmark's name; bactrian is Fig. 3's."""


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
    """Shorter answers are not judged."""


@dataclass
class InstructionsConfig(OffTargetConfig):
    """Instructions of Bactrian-X (appendix E)."""

    id_prefix: str = ""
    """Only prompts whose id begins so; ``dolly`` is the part the paper used, empty takes all."""
    language_identifier: EngineConfig = field(default_factory=lambda: EngineConfig(name="cld3"))


@dataclass
class CometConfig:
    """COMET of FLORES translations, in its own environment (``make comet-env``)."""

    enabled: bool = False
    model: str = ""
    """Folder of wmt22-comet-da as the hub gives it (checkpoints/model.ckpt, hparams.yaml)."""
    encoder: str = ""
    """Folder of its encoder (xlm-roberta-large); by default the one that hparams.yaml names."""
    python: str = PYTHON
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 32


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
    """Compare ``base_model`` with ``trained_model`` (Hugging Face folders) on held-out data.

    Losses and hidden states are computed in fp32, whatever ``generation.dtype`` says.
    """

    names: ClassVar[tuple[str, ...]] = HELD_OUT_NAMES
    dtype: ClassVar[str] = "float32"
    comet: ClassVar[CometConfig] = CometConfig()

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
    templates: TemplateConfig = field(default_factory=TemplateConfig)
    """How conversations are rendered where a model folder does not say it."""
    plugins: list[str] = field(default_factory=list)
    """Python modules to import first; they may register language identifiers of their own."""
    seed: int = 1234
    backend: EngineConfig = field(default_factory=lambda: EngineConfig(name="transformers"))
    """``transformers``, or ``ctranslate2``: the same answers sooner on a CPU (generation.dtype: float32)."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's own choice."""
    bleu_tokenize: str = "auto"
    """sacreBLEU's tokeniser (``sacrebleu --help`` lists them); ``auto`` takes that of the language translated into."""
    bleu_spm: str = ""
    """File of FLORES-200's SentencePiece model; by default sacreBLEU's own place for it."""
    samples: int = 6
    """Answers and translations shown side by side in the report, each."""
    loss: LossConfig = field(default_factory=LossConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    language_identifier: EngineConfig = field(default_factory=lambda: EngineConfig(name="cld3"))
    off_target: OffTargetConfig = field(default_factory=OffTargetConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    goals: GoalsConfig = field(default_factory=GoalsConfig)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.loss.batch_tokens


@dataclass
class PromptConfig:
    """Wording; ``{...}`` are filled per item. The paper prints no prompts and no number of shots: all are zero-shot."""

    chat_template: bool = True
    """Generated answers: the question is the user's turn of the model's chat template, as in training."""
    belebele: str = "paper"
    """``paper``: Passage/Query/Choices (A)-(D)/Answer of Belebele's authors; ``lm_eval``: P/Q/A/B/C/D/Answer."""
    belebele_chat: bool = False
    """Log-likelihood scoring behind the chat template; False scores the plain text as lm-evaluation-harness does."""
    mkqa: str = "Answer the following question in {language} with a few words only.\n{question}"
    xlsum: str = "Summarize the following text in one sentence in {language}.\n{text}"
    flores: str = "Translate the following sentence from {source} to {target}.\n{sentence}"
    """Table 1's wording."""
    multiloko: str = "Answer the following question in {language} as briefly as you can. Give only {kind}.\n{question}"
    mgsm: str = (
        "Solve this problem in {language}, step by step. On the last line write '{heading}:' and the number alone.\n"
        "{question}"
    )


@dataclass
class LanguageConfusionConfig:
    """How the Language Confusion Benchmark judges lines and words; its authors use lid.176.bin and their list."""

    language_identifier: EngineConfig = field(default_factory=lambda: EngineConfig(name="fasttext_lid"))
    words: str = ""
    """File of English words, one a line; by default ``words`` in the benchmark's folder."""


@dataclass
class ArenaHardConfig:
    """The judge of m-ArenaHard, a model behind the OpenAI protocol, and the answers it compares with."""

    model: str = ""
    """Name of the judge as the server has it; empty: answers are written and not judged."""
    baseline: str = ""
    """The baseline's answers: ``results.json`` of its evaluation on m_arenahard, or rows of question_id and answer;
    ``{language}`` stands for the ISO 639-3 code."""
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str = ""
    """Environment variable with the key."""
    rules: str = ""
    """Text file with what the judge is told, in place of this project's words; the labels must be Arena-Hard's."""
    max_new_tokens: int = 4096
    concurrency: int = 8
    timeout_s: float = 600.0
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields for each request beside those that are set."""


@dataclass
class BenchmarkConfig:
    """Which benchmarks in which languages, where their data lies, and how the model runs."""

    kind: str = KIND
    models: dict[str, str] = field(default_factory=dict)
    """tools/evaluate.py: role -> Hugging Face folder, in the order of the tables; the API takes one folder instead."""
    output_dir: str = MISSING
    """tools/evaluate.py only; measure_model takes it as an argument."""
    names: list[str] = field(default_factory=lambda: [*NAMES])
    source_language: str = "eng"
    """The resource-rich language; measured beside every target language."""
    languages: list[str] = field(default_factory=lambda: ["por"])
    """Target languages (ISO 639-3)."""
    data_dir: str = "data/benchmarks"
    """Folder with the data sets in their official formats (docs/evaluation.md)."""
    download: bool = False
    """Fetch what is missing under data_dir by name; of the benchmarks only MultiLoKo has to be unpacked by hand."""
    hub: dict[str, str] = field(default_factory=dict)
    """Data set (one of FETCHED) -> repository or folder to fetch it from instead."""
    limits: dict[str, int] = field(default_factory=dict)
    """benchmark -> first N items; absent or 0 means all."""
    backend: EngineConfig = field(default_factory=lambda: EngineConfig(name="transformers"))
    """``transformers``, ``ctranslate2`` (its answers, sooner on a CPU), ``vllm`` (in this process, GPU) or
    ``openai_server`` (a vLLM server)."""
    device: str = "auto"
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's own choice."""
    dtype: str = "float32"
    """float32 gives scores that no batch size and no order changes; in half precision close calls may turn."""
    batch_tokens: int = 4096
    """Prompt tokens (padding and new tokens included) of one forward pass; speed and memory only."""
    max_new_tokens: dict[str, int] = field(default_factory=dict)
    """benchmark -> longest answer in tokens; without it what its suite says."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    off_target: InstructionsConfig = field(default_factory=InstructionsConfig)
    bleu_tokenize: str = "auto"
    """sacreBLEU's tokeniser; ``auto`` takes the paper's ``flores200`` where its SentencePiece model is on disk, else
    that of the language translated into."""
    bleu_spm: str = ""
    """File of FLORES-200's SentencePiece model; by default sacreBLEU's own place for it."""
    language_confusion: LanguageConfusionConfig = field(default_factory=LanguageConfusionConfig)
    arena_hard: ArenaHardConfig = field(default_factory=ArenaHardConfig)
    comet: CometConfig = field(default_factory=CometConfig)
    tsne_perplexity: float = 15.0
    cases: int = 6
    """Answers shown side by side (appendix D)."""
    seed: int = 1234
    templates: TemplateConfig = field(default_factory=TemplateConfig)
    """How conversations are rendered where a model folder does not say it."""
    plugins: list[str] = field(default_factory=list)
    """Python modules to import first; they may register backends or language identifiers."""


def check(config: EvalConfig | BenchmarkConfig) -> None:
    """SdrrlError for a value that no later stage could name as clearly."""
    targets = [config.target_language] if isinstance(config, EvalConfig) else config.languages
    for code in (config.source_language, *targets):
        language(code)
    choices, at_least = _held_out_limits(config) if isinstance(config, EvalConfig) else _benchmark_limits(config)
    for key, values, known in (*choices, ("device", [config.device], DEVICES)):
        for value in values:
            if value not in known:
                raise SdrrlError(f"{key}: unknown value '{value}'{suggest(value, known)}")
    at_least |= {"threads": (config.threads, 0), "off_target.min_letters": (config.off_target.min_letters, 1)}
    for key, (number, least) in at_least.items():
        if number < least:
            raise SdrrlError(f"{key} is {number}; it must be at least {least}")


Choices = list[tuple[str, Iterable[str], tuple[str, ...]]]
"""(key, its values, those that are allowed)."""
AtLeast = dict[str, tuple[int, int]]
"""Key -> (its value, the least that is allowed)."""


def _held_out_limits(config: EvalConfig) -> tuple[Choices, AtLeast]:
    if config.source_language == config.target_language:
        raise SdrrlError(f"source_language and target_language are both '{config.target_language}'; they must differ")
    g = config.generation
    return [("generation.dtype", [g.dtype], ("float32", "bfloat16", AUTO))], {
        "loss.questions": (config.loss.questions, 0),
        "loss.pairs": (config.loss.pairs, 0),
        "loss.batch_tokens": (config.loss.batch_tokens, 1),
        "generation.questions": (g.questions, 0),
        "generation.pairs": (g.pairs, 0),
        "generation.max_new_tokens": (g.max_new_tokens, 1),
        "generation.batch_size": (g.batch_size, 1),
        "alignment.questions": (config.alignment.questions, 0),
        "goals.bootstrap_samples": (config.goals.bootstrap_samples, 100),
        "samples": (config.samples, 0),
    }


def _benchmark_limits(config: BenchmarkConfig) -> tuple[Choices, AtLeast]:
    if not config.languages or not config.names:
        raise SdrrlError("names and languages need at least one entry each")
    if config.source_language in config.languages:
        raise SdrrlError(
            f"languages holds the source language '{config.source_language}'; it is measured anyway, leave it out"
        )
    if config.tsne_perplexity <= 0:
        raise SdrrlError(f"tsne_perplexity is {config.tsne_perplexity}; it must be positive")
    if config.comet.enabled and not config.comet.model:
        raise SdrrlError("comet.enabled needs comet.model, the folder of wmt22-comet-da (docs/evaluation.md)")
    _check_templates(config.prompts)
    choices: Choices = [
        ("hub", config.hub, FETCHED),
        ("dtype", [config.dtype], DTYPES),
        ("prompts.belebele", [config.prompts.belebele], BELEBELE_PROMPTS),
    ]
    return choices, {
        "batch_tokens": (config.batch_tokens, 1),
        "cases": (config.cases, 0),
        "arena_hard.max_new_tokens": (config.arena_hard.max_new_tokens, 1),
        **{f"limits.{k}": (v, 0) for k, v in config.limits.items()},
        **{f"max_new_tokens.{k}": (v, 1) for k, v in config.max_new_tokens.items()},
    }


def _check_templates(prompts: PromptConfig) -> None:
    """Every prompt must hold its own fields and no other."""
    needed = {
        "mkqa": {"question"},
        "xlsum": {"text"},
        "flores": {"sentence"},
        "multiloko": {"question"},
        "mgsm": {"question", "heading"},
    }
    known = {
        "mkqa": {"question", "language"},
        "xlsum": {"text", "language"},
        "flores": {"sentence", "source", "target"},
        "multiloko": {"question", "language", "kind"},
        "mgsm": {"question", "heading", "language"},
    }
    for name, fields in needed.items():
        template = getattr(prompts, name)
        try:
            found = {f for _, f, _, _ in Formatter().parse(template) if f is not None}
        except ValueError as e:
            raise SdrrlError(f"prompts.{name}: not a template ({e}); write a literal brace twice") from None
        if not fields <= found or not found <= known[name]:
            raise SdrrlError(
                f"prompts.{name}: it must hold {{{', '.join(sorted(fields))}}} and may hold "
                f"{', '.join(f'{{{f}}}' for f in sorted(known[name]))}; found {sorted(found)}"
            )


def kind_of(path: str | Path) -> str:
    """``kind`` of a YAML file or of the file it is based on; empty where there is none or the file cannot be read (the
    configuration's own loader says why)."""
    current: Path | None = Path(path)
    for _ in range(10):
        if current is None or not current.is_file():
            return ""
        try:
            data = yaml.safe_load(current.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            return ""
        if not isinstance(data, dict):
            return ""
        if "kind" in data:
            return str(data["kind"])
        current = current.parent / str(data["base"]) if data.get("base") else None
    return ""
