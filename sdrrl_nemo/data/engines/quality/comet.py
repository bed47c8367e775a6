"""COMET models in an environment of their own, fed over a pipe; CometKiwi (Rei et al. 2022) is the paper's estimator.

The same worker scores wmt22-comet-da with references for sdrrl_nemo/eval/scorers/comet.py.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import BROKEN_JSON, content_key
from sdrrl_nemo.data.engines.base import QUALITY_ESTIMATORS, Assessment, Languages, QualityEstimator
from sdrrl_nemo.data.engines.contents import matching, sha256_of
from sdrrl_nemo.data.engines.quality.segment_pairs import (
    Segments,
    assessment,
    fitting,
    require_aggregate,
    segment_pairs,
)
from sdrrl_nemo.data.text import segmentation

WORKER = Path(__file__).with_name("comet_worker.py")
PYTHON = ".venv-comet/bin/python"
"""Made by ``make comet-env``."""
DIGITS = 6
"""Scores are rounded: the same segment in another batch differs in the seventh digit (fp32)."""
ENCODER_FILES = ("*.json", "*.model", "*.txt")
PRECISIONS = ("fp32", "bf16", "fp16")
KIWI = "quality estimator 'cometkiwi'"
REVISION = 2
MOST_SUBWORDS = 500
"""Of source and translation with the marks around each: the encoder's 512, less the separators that COMET puts in."""
Segment = dict[str, str]


class CometScorer:
    """Scores of a COMET model in a process of its own, which starts with the first call and ends with this one.

    Args:
        model: folder as the hub gives it (``checkpoints/model.ckpt``, ``hparams.yaml``).
        encoder: folder of the encoder it was built on; by default the one that ``hparams.yaml`` names, if a folder.
        python: interpreter of the environment that has unbabel-comet.
        device: ``cpu`` or ``cuda`` or ``cuda:1``.
        batch_size: segments scored together.
        reference: whether the model must score with references (wmt22-comet-da) or must do without (CometKiwi); a
            model of the other kind is refused, for it would score without complaint. None: whatever it is.
        name: who asks, the start of error sentences; ``docs`` is where they send the reader.
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
    ) -> None:
        if precision not in PRECISIONS:
            raise SdrrlError(f"{name}: precision '{precision}' is not one of {', '.join(PRECISIONS)}")
        if batch_size < 1:
            raise SdrrlError(f"{name}: batch_size is {batch_size}; give 1 or more")
        self.checkpoint = Path(model) / "checkpoints" / "model.ckpt"
        self.python = python
        self.name, self.docs = name, docs
        self.options = {
            "model": str(self.checkpoint),
            "encoder": encoder,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "reference": reference,
        }
        self._process: subprocess.Popen[str] | None = None
        self._asked = 0

    def score(self, segments: Sequence[Segment]) -> list[float]:
        """One score a segment {"src", "mt"[, "ref"]}, rounded to 6 digits."""
        return [round(x, DIGITS) for x in self._numbers("scores", segments)]

    def lengths(self, segments: Sequence[Segment]) -> list[int]:
        """Subwords of each segment as the encoder reads it: all its texts together."""
        return [int(x) for x in self._numbers("lengths", segments)]

    def _numbers(self, what: str, segments: Sequence[Segment]) -> list[float]:
        """One number a segment from the worker: its ``scores`` or its ``lengths``."""
        if not segments:
            return []
        if self._process is None:
            self._start()
        self._asked += 1
        reply = self._ask({"id": self._asked, "want": what, "data": list(segments)})
        found = reply.get(what)
        numbers = isinstance(found, list) and all(isinstance(x, float | int) and math.isfinite(x) for x in found)
        if reply.get("id") != self._asked or not numbers or len(reply[what]) != len(segments):
            raise self._failed(f"gave {json.dumps(reply)[:200]} for {len(segments)} segments")
        return [float(x) for x in reply[what]]

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
        encoder = self._encoder()
        return [self.checkpoint, hparams, *(matching(Path(encoder), ENCODER_FILES) if encoder else [])]

    def _encoder(self) -> str:
        """The folder of the option ``encoder``, or what hparams.yaml names."""
        hparams = (self.checkpoint.parent.parent / "hparams.yaml").read_text(encoding="utf-8", errors="replace")
        named = re.search(r"^pretrained_model:\s*(.+?)\s*$", hparams, re.MULTILINE)
        return str(self.options["encoder"]) or (named[1].strip("'\"") if named else "")

    def check(self) -> None:
        """SdrrlError where the model, its encoder or COMET's environment is not there; nothing is started."""
        self.files()
        if (encoder := self._encoder()) and not Path(encoder).is_dir():
            raise SdrrlError(
                f"{self.name}: the encoder '{encoder}' is no folder here; download it and name it in the "
                f"option 'encoder' ({self.docs})"
            )
        if not Path(self.python).exists():
            raise SdrrlError(f"{self.name}: {self.python} is not there; make COMET's environment: make comet-env")

    def _start(self) -> None:
        self.files()
        if not Path(self.python).exists():
            raise SdrrlError(f"{self.name}: {self.python} is not there; make COMET's environment: make comet-env")
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the worker
        read, write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [self.python, "-I", str(WORKER), str(write)],  # isolated: a file beside the worker is named comet.py
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(write,),
                text=True,
                encoding="utf-8",
            )
        except OSError as e:
            os.close(read)
            self._log.close()
            raise SdrrlError(
                f"{self.name}: {self.python} cannot be started ({e.strerror}); make COMET's environment: make comet-env"
            ) from None
        finally:
            os.close(write)
        self._replies = os.fdopen(read, encoding="utf-8", errors="replace")
        self._ask(self.options)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line, wait for one; SdrrlError when the worker died, complained or does not speak the protocol."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("ended") from None
        line = self._replies.readline()
        if not line:
            raise self._failed("ended")
        try:
            reply = json.loads(line)
        except BROKEN_JSON:
            raise self._failed(f"answered '{line.strip()[:100]}', which is no JSON") from None
        if not isinstance(reply, dict):
            raise self._failed(f"answered '{line.strip()[:100]}'")
        if "error" in reply:
            raise self._failed(f"says: {reply['error']}")
        return reply

    def _failed(self, what: str) -> SdrrlError:
        """The sentence, with the exit status and the worker's own last words; the worker is gone afterwards."""
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            status = process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._replies.close()
        self._log.seek(0)
        last = [line.strip() for line in self._log.read().splitlines() if line.strip()][-1:]
        self._log.close()
        words = f"; its last words: {last[0][:300]}" if last and "says:" not in what else ""
        return SdrrlError(f"COMET's worker ({self.python}) {what} (exit status {status}){words}")

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            self._replies.close()
            self._log.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_replies", "_log")} | {"_process": None}

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()


@QUALITY_ESTIMATORS.register("cometkiwi")
class CometKiwi(QualityEstimator):
    """wmt22-cometkiwi-da: scores about 0 to 1; the paper keeps what reaches 0.8.

    A text is scored by its corresponding sentences (segment_pairs.py): their mean weighted by source length, or with
    ``aggregate: min`` the worst of them. The encoder reads source and translation together and cuts away what is beyond
    its 512 subwords, so longer segments are halved until they fit.
    """

    licence = "CC-BY-NC-SA-4.0"
    noncommercial = True

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
        require_aggregate("cometkiwi", aggregate)
        self._aggregate = aggregate
        self._scorer = CometScorer(model, encoder, python, device, precision, batch_size, reference=False)

    @cached_property
    def identity(self) -> str:  # type: ignore[override]
        """Precision, and how texts become segments and their scores one; batch size and device do not count."""
        how = f"r{REVISION}/{self._aggregate}/protected-{segmentation.REVISION}"
        return f"cometkiwi/{how}/{self._scorer.options['precision']}"

    def files(self, *languages: str) -> Iterable[Path]:
        return self._scorer.files()

    def check(self, *languages: str) -> None:
        """Whether model, encoder and COMET's environment are there."""
        self._scorer.check()

    def try_out(self) -> None:
        """Scores one pair and ends the worker: the stage starts its own, where it works."""
        super().try_out()
        self._scorer.close()

    def score(self, sources: Sequence[str], translations: Sequence[str]) -> list[float]:
        return [found.score for found in self.assess(sources, translations, ("eng", "eng"))]

    def assess(self, sources: Sequence[str], translations: Sequence[str], languages: Languages) -> list[Assessment]:
        texts = list(zip(sources, translations, strict=True))
        cut = [fitting(segment_pairs(s, t, languages), self._too_long) for s, t in texts]
        asked = list(dict.fromkeys(pair for parts in cut for pair in parts))
        scores = dict(zip(asked, self._scorer.score([{"src": s, "mt": t} for s, t in asked]), strict=True))
        return [assessment(parts, [scores[pair] for pair in parts], self._aggregate) for parts in cut]

    def _too_long(self, pairs: Sequence[Segments]) -> list[bool]:
        """Which pairs the encoder would cut; the worker is asked where their characters leave it open."""
        open_ = [pair for pair in pairs if _most_subwords(pair) > MOST_SUBWORDS]
        lengths = self._scorer.lengths([{"src": s, "mt": t} for s, t in open_])
        long = {pair for pair, length in zip(open_, lengths, strict=True) if length > MOST_SUBWORDS}
        return [pair in long for pair in pairs]


def _most_subwords(pair: Segments) -> int:
    """No subword is shorter than a character of the normalised text, but for the mark before a word."""
    texts = [unicodedata.normalize("NFKC", text) for text in pair]
    return sum(len(text) + len(text.split()) + 2 for text in texts)
