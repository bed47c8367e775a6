"""COMET models in an environment of their own, fed over a pipe; CometKiwi (Rei et al. 2022) is the paper's estimator.

The same worker scores wmt22-comet-da with references for sdrrl_nemo/eval/scorers/comet.py.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from pathlib import Path

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import content_key
from sdrrl_nemo.data.engines.base import QUALITY_ESTIMATORS
from sdrrl_nemo.data.engines.contents import matching, sha256_of
from sdrrl_nemo.data.engines.quality.scoring_process import PYTHON, ScoringProcess
from sdrrl_nemo.data.engines.quality.segment_estimator import SegmentEstimator
from sdrrl_nemo.data.engines.quality.segment_pairs import Segments

WORKER = Path(__file__).with_name("comet_worker.py")
ENCODER_FILES = ("*.json", "*.model", "*.txt")
KIWI = "quality estimator 'cometkiwi'"
XCOMET_CLASS = "xcomet_metric"
"""What hparams.yaml calls xCOMET-XL and xCOMET-XXL."""
MOST_SUBWORDS = 500
"""Of source and translation with the marks around each: the encoder's 512, less the separators that COMET puts in."""


class CometScorer(ScoringProcess):
    """Scores of a COMET model.

    Args:
        model: folder as the hub gives it (``checkpoints/model.ckpt``, ``hparams.yaml``).
        encoder: folder of the encoder it was built on; by default the one that ``hparams.yaml`` names, if a folder.
        python: interpreter of the environment that has unbabel-comet.
        device: ``cpu`` or ``cuda`` or ``cuda:1``.
        batch_size: segments scored together.
        reference: whether the model must score with references (wmt22-comet-da) or must do without (CometKiwi); a
            model of the other kind is refused, for it would score without complaint. None: whatever it is.
        name: who asks, the start of error sentences; ``docs`` is where they send the reader.
        xcomet: whether it must be an xCOMET, which scores either way, or must be none. None: whatever it is.
    """

    def __init__(
        self,
        model: str,
        encoder: str,
        python: str,
        device: str,
        precision: str,
        batch_size: int,
        reference: bool | None = None,
        name: str = KIWI,
        docs: str = "docs/quality.md",
        xcomet: bool | None = None,
    ) -> None:
        self.checkpoint = Path(model) / "checkpoints" / "model.ckpt"
        self.docs, self.xcomet = docs, xcomet
        options = {
            "model": str(self.checkpoint),
            "encoder": encoder,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "reference": reference,
        }
        super().__init__(WORKER, python, options, name, "COMET")

    @cached_property
    def identity(self) -> str:
        """Content key of checkpoint, encoder and precision, which all change scores; batch size and device do not."""
        if not self.checkpoint.is_file():
            raise SdrrlError(
                f"{self.name}: no COMET model at {self.checkpoint}; correct the option 'model' "
                f"({self.docs} says how to get it)"
            )
        return content_key(sha256_of(self.checkpoint), self.options["encoder"], self.options["precision"])

    def files(self) -> list[Path]:
        """Checkpoint, hparams.yaml, and of the encoder's folder what is read: its configuration and tokenizer, for its
        weights are in the checkpoint. SdrrlError where the first two are not there."""
        hparams = self.checkpoint.parent.parent / "hparams.yaml"
        for path, what in ((self.checkpoint, "no COMET model"), (hparams, "no hparams.yaml")):
            if not path.is_file():
                raise SdrrlError(f"{self.name}: {what} at {path}; correct the option 'model' ({self.docs})")
        is_xcomet = self._hparam("class_identifier") == XCOMET_CLASS
        if self.xcomet not in (None, is_xcomet):
            right = "xcomet" if is_xcomet else "cometkiwi"
            raise SdrrlError(
                f"{self.name}: {hparams} is {'an' if is_xcomet else 'no'} xCOMET; name the engine '{right}'"
            )
        encoder = self._encoder()
        return [self.checkpoint, hparams, *(matching(Path(encoder), ENCODER_FILES) if encoder else [])]

    def _encoder(self) -> str:
        """The folder of the option ``encoder``, or what hparams.yaml names."""
        return str(self.options["encoder"]) or self._hparam("pretrained_model")

    def _hparam(self, key: str) -> str:
        """A plain value of hparams.yaml, '' where it has none."""
        hparams = (self.checkpoint.parent.parent / "hparams.yaml").read_text(encoding="utf-8", errors="replace")
        named = re.search(rf"^{key}:\s*(.+?)\s*$", hparams, re.MULTILINE)
        return named[1].strip("'\"") if named else ""

    def check(self) -> None:
        """SdrrlError where the model, its encoder or COMET's environment is not there; nothing is started."""
        self.files()
        if (encoder := self._encoder()) and not Path(encoder).is_dir():
            raise SdrrlError(
                f"{self.name}: the encoder '{encoder}' is no folder here; download it and name it in the "
                f"option 'encoder' ({self.docs})"
            )
        self._check_python()


@QUALITY_ESTIMATORS.register("cometkiwi")
class CometKiwi(SegmentEstimator):
    """wmt22-cometkiwi-da: scores about 0 to 1; the paper keeps what reaches 0.8.

    The encoder reads source and translation together and cuts away what is beyond its 512 subwords, so longer segments
    are halved until they fit.
    """

    name = "cometkiwi"
    licence = "CC-BY-NC-SA-4.0"
    noncommercial = True
    most_tokens = MOST_SUBWORDS
    xcomet = False

    def __init__(
        self,
        model: str,
        encoder: str = "",
        python: str = PYTHON,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 32,
        aggregate: str = "mean",
    ) -> None:
        # An xCOMET reads references where there are any, so it is not asked whether it can do without.
        asked = None if self.xcomet else False
        where = f"quality estimator '{self.name}'"
        scorer = CometScorer(
            model, encoder, python, device, precision, batch_size, reference=asked, name=where, xcomet=self.xcomet
        )
        super().__init__(scorer, aggregate)

    def most_tokens_of(self, pair: Segments) -> int:
        """No subword is shorter than a character of the normalised text, but for the mark before a word."""
        texts = [unicodedata.normalize("NFKC", text) for text in pair]
        return sum(len(text) + len(text.split()) + 2 for text in texts)


@QUALITY_ESTIMATORS.register("xcomet")
class XComet(CometKiwi):
    """xCOMET-XL or -XXL (Guerreiro et al. 2023) without references: 0 to 1, a mean of its regression and of the MQM
    score of the error spans that it finds. Its encoder is facebook/xlm-roberta-xl or -xxl."""

    name = "xcomet"
    xcomet = True
