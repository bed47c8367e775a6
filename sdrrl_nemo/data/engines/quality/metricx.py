"""MetricX-24 (Juraska et al. 2024) without references, in COMET's environment: an mT5 that predicts an error score."""

from __future__ import annotations

from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json_object
from sdrrl_nemo.data.engines.base import QUALITY_ESTIMATORS
from sdrrl_nemo.data.engines.contents import matching
from sdrrl_nemo.data.engines.quality.scoring_process import DIGITS, PYTHON, ScoringProcess, Segment
from sdrrl_nemo.data.engines.quality.segment_estimator import SegmentEstimator
from sdrrl_nemo.data.engines.quality.segment_pairs import Segments

WORKER = Path(__file__).with_name("metricx_worker.py")
NAME = "quality estimator 'metricx'"
WORST = 25.0
"""The error of the worst translation; 0 is that of a perfect one."""
MODEL_FILES = ("*.safetensors", "*.bin", "config.json")
TOKENIZER_FILES = ("*.json", "*.model")


class MetricXScorer(ScoringProcess):
    """Scores of a MetricX-24 folder, turned: 1 for no error, 0 for the worst."""

    def __init__(self, model: str, tokenizer: str, python: str, device: str, precision: str, batch_size: int) -> None:
        self.model, self.tokenizer = Path(model), Path(tokenizer)
        options = {
            "model": model,
            "tokenizer": tokenizer,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
        }
        super().__init__(WORKER, python, options, NAME, "MetricX")

    def score(self, segments: list[Segment]) -> list[float]:  # type: ignore[override]
        """1 - error / 25 of each segment, so that as everywhere higher is better and tau is a least score."""
        return [round(1 - error / WORST, DIGITS) for error in self._numbers("scores", segments)]

    def files(self) -> list[Path]:
        """Weights and configuration, and the tokenizer's files; SdrrlError where one of the folders is not that."""
        config = self.model / "config.json"
        if not config.is_file():
            raise SdrrlError(f"{NAME}: no model at {self.model} (no config.json); correct 'model' (docs/quality.md)")
        if (kind := read_json_object(config).get("model_type")) != "mt5":
            raise SdrrlError(f"{NAME}: {self.model} is a '{kind}' model; MetricX-24 is an 'mt5'; correct 'model'")
        tokenizer = matching(self.tokenizer, TOKENIZER_FILES)
        if not tokenizer:
            raise SdrrlError(
                f"{NAME}: no tokenizer at {self.tokenizer}; MetricX comes without one: download google/mt5-xl's and "
                "name its folder in 'tokenizer' (docs/quality.md)"
            )
        return [*matching(self.model, MODEL_FILES), *tokenizer]


@QUALITY_ESTIMATORS.register("metricx")
class MetricX(SegmentEstimator):
    """MetricX-24-Hybrid, reference-free: 1 - error / 25, so 0 to 1 with 1 for no error; 0.8 is an error of 5.

    ``tokenizer`` is a folder with mT5's tokenizer, which the models come without. The model was trained on at most
    1,536 tokens; longer segments are halved until they fit.
    """

    name = "metricx"
    licence = "Apache-2.0"
    most_tokens = 1536

    def __init__(
        self,
        model: str,
        tokenizer: str,
        python: str = PYTHON,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 16,
        aggregate: str = "mean",
    ) -> None:
        super().__init__(MetricXScorer(model, tokenizer, python, device, precision, batch_size), aggregate)

    def most_tokens_of(self, pair: Segments) -> int:
        """mT5 falls back to bytes, at most four a character and three more in forms that its normaliser takes apart."""
        return sum(len(text.encode()) + len(text.split()) for text in pair) * 3 + 16
