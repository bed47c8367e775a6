#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"'
"""Instruction set D -> packed transfer set (paper, section 3.2) and its data card.

    tools/preprocess_sdrrl.py --config configs/data/demo_por.yaml [key=value ...] [--dry-run]

Stopped at any moment, the same command continues; finished, it says so. Before the first stage everything that the run
needs is checked; ``--dry-run`` prints the plan and ends after that.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.compat.check import start_check
from sdrrl_nemo.data.config import Pair, PreprocessConfig
from sdrrl_nemo.data.validation import import_plugins, validate

if TYPE_CHECKING:
    from sdrrl_nemo.data.chosen_engines import Engines, Problems
    from sdrrl_nemo.data.execution.stage_runner import Source, StageResult
    from sdrrl_nemo.data.outputs import HeldOut
    from sdrrl_nemo.data.rows import InstructionRow, SampleRow, SynthRow, TokenizedRow
    from sdrrl_nemo.data.steps import Steps

# Threads that wait for each other sleep instead of spinning: on shared cores spinning costs six times the CPU time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(argv: Sequence[str]) -> int:
    """Parse, check, run; returns the exit code."""
    parser = config_parser(__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, start nothing")
    arguments = parser.parse_args(argv)
    config = load_config(PreprocessConfig, arguments.config, arguments.overrides)
    validate(config, files=False)  # whether they are there is told with all else that is missing
    start_check("data")
    import_plugins(config.plugins)
    if arguments.dry_run:
        dry_run(config)
        return 0
    preprocess(config, Path(config.output_dir))
    write_card(config.output_dir)
    return 0


def preprocess(config: PreprocessConfig, directory: Path) -> dict[str, Any]:
    """Run what is left to do for ``config`` and print the tables; returns stats.json's content."""
    # Only here, because the engines' packages would make --help and a wrong key wait for seconds.
    from sdrrl_nemo.data import chosen_engines, licences, output_folder, summary
    from sdrrl_nemo.data.execution import make_executor
    from sdrrl_nemo.data.execution.stage_runner import remove_leftovers
    from sdrrl_nemo.data.steps import Steps

    with output_folder.output_lock(directory):
        problems = chosen_engines.Problems()
        engines = chosen_engines.Engines(config, problems)
        stats = output_folder.finished(config, engines.contents)
        if stats is not None:
            summary.print_summary(stats, str(directory))
            print("Nothing to do: this output is finished and its files are whole.")
            return stats
        remove_leftovers(directory)
        checked(config, engines, problems)
        request = output_folder.request_fingerprint(config, engines.contents())
        with contextlib.closing(make_executor(config.execution)) as executor:
            steps = Steps(config, engines, executor)
            summary.print_engines(engines.table(), licences.inputs(config, steps.sources))
            stats = transfer_set(steps, request)
        summary.print_summary(stats, str(directory))
        return stats


def checked(config: PreprocessConfig, engines: Engines, problems: Problems, show: bool = False) -> None:
    """The preflight: SdrrlError when anything stands in the way of the run, after all of it is printed. ``show``: the
    forecast is printed too."""
    from sdrrl_nemo.data.preflight.checks import preflight, require_no_problem
    from sdrrl_nemo.data.preflight.forecast import forecast
    from sdrrl_nemo.data.preflight.outlook import print_forecast

    predicted = None
    with problems.caught("instructions.path"):
        predicted = forecast(config)
        if show:
            print_forecast(predicted)
    report = preflight(config, engines, problems, predicted)
    for note in report.notes:
        print(f"note: {note}")
    require_no_problem(problems)
    print(f"Preflight: {report.checks} checks in {report.seconds:.1f} s, no problem.")


def dry_run(config: PreprocessConfig) -> None:
    """Print what the run would do, what stands in its way, and which stages are finished; nothing is run or written."""
    from sdrrl_nemo.data.chosen_engines import Engines, Problems
    from sdrrl_nemo.data.preflight.outlook import print_states, stage_states

    problems = Problems()
    engines = Engines(config, problems)
    checked(config, engines, problems, show=True)
    print_states(stage_states(config, engines, samples_of))


def transfer_set(steps: Steps, request: str) -> dict[str, Any]:
    """Section 3.2 from top to bottom; returns stats.json's content."""
    tokens, held_out = samples_of(steps)
    return steps.publish(request, tokens, held_out)  # packs, with |D_d| of each subset for the weights of Eq. 6


def samples_of(steps: Steps) -> tuple[StageResult[TokenizedRow], dict[Pair, HeldOut]]:
    """Every stage before the final files: the tokenised samples, and the held-out rows of each pair.

    ``source`` is the language of the instructions, English in the paper, and a pair is (source, target). Letters:
    x question, y answer of the instruction set, y_hat answer of the model, L resource-rich language, T target language;
    TL is a question in T answered in L.
    """
    from sdrrl_nemo.data.outputs import HeldOut

    samples: list[Source[SampleRow] | None] = []
    held_out: dict[Pair, HeldOut] = {}
    for source in steps.sources:
        training, held = steps.instructions(source)  # D = {(x, y)}
        synth = self_distillation(steps, source, training)  # D_synth
        for pair in (p for p in steps.pairs if p[0] == source):
            # Held-out texts go their own way from here on: nothing of them may leak into training.
            questions = steps.held_out_questions(pair, held)
            samples.append(instructions_of(steps, pair, synth))  # D_LL, D_TL, D_LT, D_TT
            sentences, held_sentences = steps.parallel_corpus(pair)  # P
            samples.append(steps.templates(pair, sentences))  # D_mt, D_comp by the instructions of Table 1
            held_out[pair] = HeldOut(questions, held_sentences)
    ordered = steps.order(s for s in samples if s is not None)
    return steps.tokenize(ordered), held_out


def self_distillation(steps: Steps, source: str, training: Source[InstructionRow]) -> Source[SynthRow]:
    """Section 3.2.1: the model answers the questions itself, and D_synth takes y or y_hat for each (Eq. 4)."""
    from sdrrl_nemo.data.steps import NOTHING

    if not steps.plan.uses_questions(source):
        return NOTHING
    answered = steps.generate(source, training) if steps.plan.asks_the_model(source) else training
    return steps.synthesise(source, answered)


def instructions_of(steps: Steps, pair: Pair, synth: Source[SynthRow]) -> Source[SampleRow] | None:
    """Sections 3.2.2 and 3.2.3: questions and answers in both languages, then code-switched (Eq. 5).

    None where the method makes no such samples for this pair.
    """
    todo = steps.plan.recipes[pair]
    if not steps.plan.combinations_of(pair):
        return None
    rows = steps.translate(pair, synth) if todo.needs_translation else steps.untranslated(synth)
    samples = steps.combine(pair, rows)
    if todo.code_switch:
        samples = steps.code_switch(pair, samples)
    # After code-switching, so that the request for the answer's language stays whole.
    if steps.plan.answer_language != "implicit":
        samples = steps.answer_language(pair, samples)
    return samples


def write_card(directory: str) -> None:
    """The card follows from the finished files: when it cannot be written, they stay and the run has not failed."""
    from sdrrl_nemo.report.data_card import write_data_card

    try:
        print(f"data card: {write_data_card(directory)}")
    except (SdrrlError, OSError) as e:
        print(f"warning: no data card: {e}; write it with tools/docs/data_card.py --data {directory}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run(main))
