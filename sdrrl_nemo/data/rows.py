"""The rows of the transfer set, one type for each boundary between stages.

A row is a plain dictionary, one JSON object in a line of ``output_dir/stages/<stage>/*.rows.jsonl``. The types say
which keys it has there; mypy checks them, and at run time they do nothing. In the order of section 3.2 of the paper:

    InstructionRow -> SynthRow -> TranslatedRow -> SampleRow -> OrderedRow -> TokenizedRow     questions
                                       PairRow  -> SampleRow                                   the parallel corpus

A key marked ``NotRequired`` is added by a later stage between the same two boundaries, or only by some configurations.
Keys of rows (``key``, ``source_key``) are 16 hexadecimal digits of a hash over the row's content, so they stay the same
whatever the order of the file and the number of workers.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

SUBSETS: tuple[str, ...] = ("LL", "TL", "LT", "TT", "mt", "comp")
"""The six subsets of one language pair (section 3.2), in their fixed order in every file and tensor. The first letter
is the question's language, the second the answer's: L is the resource-rich source language, T the target language."""

Component = Literal["question", "answer"]
COMPONENTS: tuple[Component, ...] = ("question", "answer")
"""What is translated and judged of a row, each for itself."""

TARGET: dict[Component, Literal["question_target", "answer_target"]] = {
    "question": "question_target",
    "answer": "answer_target",
}
"""Component -> key of its translation."""

QUALITY: dict[Component, Literal["question_quality", "answer_quality"]] = {
    "question": "question_quality",
    "answer": "answer_quality",
}
"""Component -> key of its translation's estimated quality."""

SEGMENTS: dict[Component, Literal["question_segments", "answer_segments"]] = {
    "question": "question_segments",
    "answer": "answer_segments",
}
"""Component -> key of what that estimate was made of."""

TOKEN_FIELDS = ("tokens", "spans")
"""Keys that tokenising adds; transfer_set.jsonl leaves them out, since ``packed/`` has them."""

Split = Literal["train", "held-out"]
Origin = Literal["y", "y_hat", "parallel"]
"""Where an answer comes from: the instruction set (y), the model (y_hat), or the parallel corpus."""


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Exchange(TypedDict):
    """A question and its answer."""

    question: str
    answer: str


class TranslatedExchange(TypedDict):
    """The translations of both; None: rejected."""

    question: str | None
    answer: str | None


class SegmentScores(TypedDict):
    """What an estimate was made of, where the engine judges a text by its segments."""

    mean: float
    """Mean of the segments' scores, weighted by the length of the source."""
    min: float
    """The worst segment's score."""
    segments: int


class ExchangeQuality(TypedDict):
    """The estimated quality of both translations, as far as they were judged."""

    question: NotRequired[float]
    answer: NotRequired[float]
    question_segments: NotRequired[SegmentScores]
    answer_segments: NotRequired[SegmentScores]


class History(TypedDict):
    """What stands before a row's question in its conversation; a row of one exchange has neither key."""

    system: NotRequired[str]
    """The system turn, in the language it was written in: it is never translated."""
    earlier: NotRequired[list[Exchange]]
    """The exchanges before the last, in order; ``question`` and ``answer`` of the row are the last."""


class NoRow(TypedDict):
    """The one empty row that a stage gets which reads a file of its own."""


class InstructionRow(History):
    """One instruction of D (section 3.1), as ``ingest`` writes it."""

    key: str
    """Hash of question and answer, and of what stands before them."""
    weight: NotRequired[float]
    """What the row's samples count in the mean of their subset, relative to others; absent where that is 1."""
    question: str
    """x: the instruction, with its input where it has one."""
    answer: str
    """y: the answer that the instruction set gives."""
    split: NotRequired[Split]
    """Whether training sees the question; set once all questions are read."""
    generated: NotRequired[str | None]
    """y_hat, the model's own answer; None where it was rejected. ``generate`` adds it to the questions it asks."""
    generated_earlier: NotRequired[list[str]]
    """The model's own answers to the earlier questions, each given after its own answers before."""


class SynthRow(History):
    """One question and answer of D_synth (Eq. 4), in the source language."""

    key: str
    """Hash of question, origin and answer; of a conversation, of all its answers."""
    source_key: str
    """Key of the instruction: all samples that come from one question share it."""
    origin: Origin
    """``y`` or ``y_hat``."""
    weight: NotRequired[float]
    """As its `InstructionRow` has it."""
    question: str
    """x."""
    answer: str
    """y or y_hat, as ``origin`` says."""


class TranslatedRow(SynthRow):
    """A row of D_synth with its translations (section 3.2.2).

    A stage that rejects a translation sets it to None and leaves the row, since the other component is still good.
    """

    question_target: str | None
    """T(x); None: rejected."""
    answer_target: str | None
    """T(y) or T(y_hat); None: rejected."""
    question_quality: NotRequired[float]
    """Estimated quality of T(x), which tau is compared with; ``quality`` adds it."""
    answer_quality: NotRequired[float]
    """The same of the answer's translation."""
    question_segments: NotRequired[SegmentScores]
    """Mean and minimum over the segments of T(x), from engines that judge by segments; ``quality`` adds it."""
    answer_segments: NotRequired[SegmentScores]
    """The same of the answer's translation."""
    earlier_target: NotRequired[list[TranslatedExchange]]
    """The translations of ``earlier``, turn by turn; ``translate`` adds them where there are earlier exchanges."""
    earlier_quality: NotRequired[list[ExchangeQuality]]
    """Their estimated qualities."""


class PairRow(TypedDict):
    """One sentence pair of the parallel corpus P (section 3.2.4)."""

    key: str
    """Hash of both sentences."""
    source: str
    """s: the sentence in the source language."""
    target: str
    """t: the sentence in the target language."""
    split: NotRequired[Split]
    """Whether training sees the pair; set once the pair is chosen."""


class SampleRow(History):
    """A training sample in the making: a question, the answer to learn, and the languages of both."""

    subset: str
    """d of Eq. 6: one of `SUBSETS`, with the pair's name behind where a run has several pairs (``LL.eng-por``), or the
    method's only subset."""
    combination: str
    """Which of `SUBSETS` the sample is, whatever its subset is called."""
    pair: str
    """``<source>-<target>``."""
    question: str
    """What the model is asked: after ``code-switch`` and ``answer-language`` with their changes."""
    answer: str
    """What it should answer; no stage changes it from here on."""
    question_language: str
    """ISO 639-3 code; of mt and comp the language of the instruction, whatever the sentence in it."""
    answer_language: str
    """ISO 639-3 code."""
    source_key: str
    """Key of the `InstructionRow` or `PairRow` it comes from."""
    origin: Origin
    """See `SynthRow`; ``parallel`` for mt and comp."""
    question_plain: NotRequired[str]
    """The question before code-switching (Eq. 5)."""
    switched: NotRequired[int]
    """Words that code-switching replaced, in all questions together."""
    earlier_plain: NotRequired[list[str]]
    """The earlier questions before code-switching."""
    weight: NotRequired[float]
    """What it counts in the mean of its subset, relative to others; absent where that is 1."""


class OrderedRow(SampleRow):
    """A sample at its final place; a line of transfer_set.jsonl, which adds ``split`` where there is a validation
    set."""

    key: str
    """Hash of subset, question and answer, and of what stands before them; decides the place."""


class TokenizedRow(OrderedRow):
    """A sample with its token ids."""

    tokens: list[int]
    """The rendered conversation, up to the token that ends the last answer (data/text/conversation.py)."""
    spans: list[list[int]]
    """[first, end) of the tokens with loss, one for each answer; the loss mask is 1 there and 0 elsewhere."""


class HeldOutQuestion(TypedDict):
    """A line of ``heldout/<pair>/questions.jsonl``: a question that training never sees, in both languages."""

    key: str
    """Key of the `InstructionRow`."""
    question: str
    answer: str
    question_target: str | None
    answer_target: str | None


class HeldOutPair(TypedDict):
    """A line of ``heldout/<pair>/pairs.jsonl``: a sentence pair that training never sees."""

    key: str
    source: str
    target: str


class RejectRow(TypedDict):
    """What a stage dropped and why; all stages' rejects together are ``rejects.jsonl``, with the stage's name.

    ``key`` and ``reason`` are always there; the others are what the stage knew.
    """

    key: str | None
    """Of the row it was; None where the row had none."""
    reason: str
    """A few words, the same for all rows dropped alike: statistics count by it."""
    stage: NotRequired[str]
    """Name of the stage; added when the rejects are read back."""
    detail: NotRequired[str | None]
    """The measured figure and its bound, or where the row stood."""
    component: NotRequired[Component]
    """Which part of the row was rejected."""
    turn: NotRequired[int]
    """Number of its exchange, from 1, where that is not the last one."""
    source: NotRequired[str]
    """The text in the source language."""
    target: NotRequired[str | None]
    """The translation."""
    text: NotRequired[str]
    """The model's answer, as it gave it."""
    question: NotRequired[str]
    row: NotRequired[Any]
    """The whole row, where a stage failed on it."""


class UntokenizedRow(OrderedRow):
    """The reject of a sample that is longer than a pack or has no exact loss mask: the whole, to be looked at."""

    reason: str
    detail: str
