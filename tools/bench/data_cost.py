#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""Predict what the paper's transfer set costs: 52,002 samples x 16 languages on 8 and 64 GPUs: docs/data_cost.md.

    python tools/bench/data_cost.py > docs/data_cost.md

All but the chain's own CPU seconds a row (docs/results/data_chain.json) are rates stated below, with their origin.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdrrl_nemo.common.cli import run
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import read_json

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, LANGUAGES, PAIRS_EACH = 52_002, 16, 1_000
QUESTION_TOKENS, ANSWER_TOKENS, GENERATED_TOKENS = 30, 90, 200
"""Mean lengths. Alpaca's rows are short; an answer of Llama-2-chat is about twice as long as Alpaca's."""
CHAIN = ROOT / "docs/results/data_chain.json"


@dataclass(frozen=True)
class Rate:
    """Units an A100/A800 80GB does in a second: a pessimistic and an optimistic figure, and why."""

    what: str
    low: float
    high: float
    why: str


RATES = {
    "generate": Rate(
        "generated tokens/s, 7B in vLLM",
        1000,
        3000,
        "one A100 40GB does about 75 tokens/s alone and 6.6 times that at 8 requests with vLLM 0.23 and an 8B model "
        "([sweep](https://johnmusgrave.com/p/vllm-throughput-latency-sweep-on)), rising further to 64; offline batches "
        "of hundreds are assumed to give 2 to 6 times the knee",
    ),
    "translate": Rate(
        "target tokens/s, NLLB-3.3B in CTranslate2 fp16, beam 4",
        800,
        2500,
        "assumed: no figure for this model on an A100 was found; a decoder half of 3.3B parameters, four beams, large "
        "batches sorted by length",
    ),
    "quality": Rate(
        "segments/s, CometKiwi (XLM-R large, 560M) in fp16",
        150,
        600,
        "assumed: 2 x 560M x 150 tokens a segment at 10% to 35% of 312 TFLOP/s, bounded by the CPU that tokenises",
    ),
}


def work() -> dict[str, float]:
    """Units of each engine's work."""
    drawn = SAMPLES / 2  # Eq. 4 draws y_hat for half of the questions; the others are not asked
    answers = (ANSWER_TOKENS + GENERATED_TOKENS) / 2
    return {
        "generate": drawn * GENERATED_TOKENS,
        "translate": SAMPLES * LANGUAGES * (QUESTION_TOKENS + answers),
        "quality": SAMPLES * LANGUAGES * 2.0,
    }


def chain() -> tuple[float, int]:
    """Seconds of one core that the chain itself needs for a question in one language, and of how many rows that is."""
    if not CHAIN.is_file():
        raise SdrrlError(f"{CHAIN}: measure it first: python tools/bench/chain_cost.py --json {CHAIN}")
    found = read_json(CHAIN)
    return float(found["milliseconds_a_row"]) / 1000, int(found["rows"])


def main(argv: Sequence[str]) -> int:
    if argv:
        raise SdrrlError(f"unexpected argument '{argv[0]}'; this tool takes none")
    todo, (cpu, measured) = work(), chain()
    print(
        "# What the paper's transfer set costs: a prediction\n\n"
        "This page predicts the GPU hours of each step of preprocessing at the size of the paper, before "
        "anyone rents a GPU.\n\n"
        f"{SAMPLES:,} samples x {LANGUAGES} languages, written by `python tools/bench/data_cost.py`. "
        "**Nothing here was run on a GPU**: units of "
        "work from mean lengths, divided by rates that are published or assumed, as said below. An A800 has an A100's "
        "arithmetic and memory and slower links, which these stages hardly use. Engines run one copy a GPU, so hours "
        "divide by the number of GPUs as long as there are shards enough.\n\n"
        "| stage | work | rate of one GPU, low - high | GPU hours | hours on 8 x A800 | hours on 64 GPUs |\n"
        "|---|---|---|---|---|---|"
    )
    total = [0.0, 0.0]
    for name, units in todo.items():
        rate = RATES[name]
        hours = [units / rate.high / 3600, units / rate.low / 3600]
        total = [a + b for a, b in zip(total, hours, strict=True)]
        cells = [
            name,
            f"{units:,.0f}",
            f"{rate.low:,.0f} - {rate.high:,.0f} {rate.what}",
            *(_span(hours, n) for n in (1, 8, 64)),
        ]
        print("| " + " | ".join(cells) + " |")
    print("| all engines | | | " + " | ".join(f"**{_span(total, n)}**" for n in (1, 8, 64)) + " |")
    rows = SAMPLES * LANGUAGES
    print(
        f"\nThe chain around the engines: {cpu * 1000:.1f} ms of one core a question and language, measured on "
        f"{measured:,} rows with engines that do nothing (`python tools/bench/chain_cost.py`): "
        f"{rows * cpu / 3600:.1f} core hours; on 64 cores "
        f"{rows * cpu / 3600 / 64:.2f} hours, beside the GPUs' work.\n\n## Rates and lengths\n"
    )
    for rate in RATES.values():
        print(f"- {rate.what}: {rate.low:,.0f} to {rate.high:,.0f}; {rate.why}.")
    print(
        f"- Lengths: {QUESTION_TOKENS} tokens a question, {ANSWER_TOKENS} an answer of the set, {GENERATED_TOKENS} an "
        "answer of the model: assumed from Alpaca's short rows."
    )
    return 0


def _span(hours: Sequence[float], gpus: int) -> str:
    return " - ".join(f"{h / gpus:.1f}" for h in hours)


if __name__ == "__main__":
    sys.exit(run(main))
