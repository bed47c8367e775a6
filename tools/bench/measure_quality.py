#!/usr/bin/env -S bash -c 'exec "$(dirname "$(readlink -f "$0")")/../python" "$0" "$@"'
"""How a quality estimator, the filters and language identification treat true translations; one table, one JSON file.

    tools/bench/measure_quality.py --config configs/data/multi.yaml --json FILE 'target_languages=[por,jpn]'

Reads what preprocessing reads: quality.engine and tau, filters, language_id, and the parallel corpus, whose pairs count
as true translations. Another estimator: quality.engine.name=cometkiwi quality.engine.options.model=DIR quality.tau=0.8

    tools/bench/measure_quality.py --config configs/data/demo_por.yaml --pairs data/judged_pairs.jsonl --json FILE

measures on translations that a person has judged instead, right and wrong ones (data/README.md): false rejects, wrong
translations accepted, precision and recall of every judge; --chosen FILE: the same under a second configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.cli import config_parser, run
from sdrrl_nemo.common.config import load_config
from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import sha256_file, write_json
from sdrrl_nemo.common.progress import progress
from sdrrl_nemo.common.provenance import provenance
from sdrrl_nemo.data.config import Pair, PreprocessConfig
from sdrrl_nemo.data.pairs import for_pair, language_pairs, pair_name
from sdrrl_nemo.data.validation import import_plugins

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def measure(
    config: PreprocessConfig, pair: Pair, count: int, keep: float, identifiers: Sequence[str]
) -> dict[str, Any]:
    """All measurements of one pair of languages."""
    from sdrrl_nemo.data.chosen_engines import filters_of
    from sdrrl_nemo.data.engines.base import LANGUAGE_IDENTIFIERS, PARALLEL_CORPORA, QUALITY_ESTIMATORS
    from sdrrl_nemo.data.studies import tau_study as study

    own = for_pair(config, pair)
    corpus, estimator, bounds = own.parallel.engine, own.quality.engine, own.language_id
    reader = PARALLEL_CORPORA.create(corpus.name, **corpus.options)
    engine = QUALITY_ESTIMATORS.create(estimator.name, **estimator.options)
    pairs = study.true_pairs(reader, pair)
    few = study.sample(pairs, count, config.seed)
    found: dict[str, Any] = {
        "corpus_pairs": len(pairs),
        "quality": study.study_estimator(engine, few, own.quality.tau, keep, config.seed) if few else None,
        "filters": study.study_filters(filters_of(own.filters), pairs),
        "language_id": {},
    }
    for name in identifiers or [bounds.engine.name]:
        options = bounds.engine.options if name == bounds.engine.name else {}
        identifier = LANGUAGE_IDENTIFIERS.create(name, **options)
        judged = study.study_identifier(identifier, pairs, bounds.min_letters, bounds.min_probability)
        found["language_id"][name] = {"identity": identifier.identity, **judged}
    return {**found, "corpus": reader.identity, "estimator": engine.identity if few else None}


def quality_table(rows: dict[str, dict[str, Any]], keep: float, tau: float) -> list[str]:
    """Markdown: what the estimator makes of true and spoilt translations."""
    kinds = ("shuffled", "truncated", "copied")
    head = ["pair", *(f"AUC {kind}" for kind in kinds), f"true below {tau:g}", f"tau that keeps {keep:.0%}"]
    head += [f"{kind} below it" for kind in kinds[:2]]
    out = [head]
    for name, row in rows.items():
        q = row["quality"]
        low, high = q["tau_interval"]
        cells = [name, *(f"{q[kind]['auc']:.3f}" for kind in kinds), f"{q['true']['rejected_at_configured_tau']:.1%}"]
        cells += [f"{q['tau_for_keep']:.2f} ({low:.2f} to {high:.2f})"]
        out.append(cells + [f"{q[kind]['rejected_at_tau_for_keep']:.1%}" for kind in kinds[:2]])
    return _markdown(out)


def rejects_table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown: shares of true pairs that filters and language identification reject; what rejects none is left out."""
    from sdrrl_nemo.data.studies.tau_study import MANY

    shares = {n: {k: v["share"] for k, v in {**r["filters"], **r["language_id"]}.items()} for n, r in rows.items()}
    columns = list(dict.fromkeys(name for share in shares.values() for name in share))
    shown = [c for c in columns if any(share.get(c) for share in shares.values())]
    out = [["pair", "pairs", *shown]]
    for name, share in shares.items():
        cells = [f"**{share[c]:.1%}**" if share[c] > MANY else f"{share[c]:.1%}" for c in shown]
        out.append([name, str(rows[name]["corpus_pairs"]), *cells])
    return _markdown(out)


def _markdown(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def measure_judged(config: PreprocessConfig, arguments: argparse.Namespace) -> None:
    """Measure on a hand-judged set; write the JSON, the page where one is named, and print the tables."""
    from sdrrl_nemo.data.studies.judged_pairs import read_judged_pairs
    from sdrrl_nemo.data.studies.judged_pairs_tables import rewrite, section
    from sdrrl_nemo.data.studies.pairs_measurement import contents, measure_pairs

    pairs = read_judged_pairs(arguments.pairs)
    identifiers = arguments.identifiers or [config.language_id.engine.name]
    found: dict[str, Any] = {
        "origin": provenance(),
        "set": {"file": arguments.pairs.name, "sha256": sha256_file(arguments.pairs)},
        "contents": contents(pairs),
        "identifiers": identifiers,
        "keep": arguments.keep,
        "configured": measure_pairs(config, pairs, identifiers, arguments.keep),
    }
    if arguments.chosen:
        chosen = load_config(PreprocessConfig, arguments.chosen, arguments.overrides)
        found["chosen"] = measure_pairs(chosen, pairs, identifiers, arguments.keep, with_sweeps=False)
    write_json(arguments.json, found)
    if arguments.page:
        rewrite(arguments.page, found)
    print("\n".join(section(found)))


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = config_parser((__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--json", type=Path, required=True, help="file for all figures")
    add("--count", type=int, default=200, help="pairs a language that the estimator scores (200); 0: none")
    add("--keep", type=float, default=0.95, help="share of true pairs that tau should keep (0.95)")
    add("--identifiers", nargs="+", default=[], help="language identifiers; default: the configured one")
    add("--pairs", type=Path, help="JSON lines of judged translations, measured instead of the parallel corpus")
    add("--chosen", type=Path, help="with --pairs: a second configuration to measure beside --config")
    add("--page", type=Path, help="with --pairs: Markdown page that gets the tables")
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse, measure, print, write."""
    arguments = options().parse_args(argv)
    if arguments.count < 0 or arguments.count == 1 or not 0 < arguments.keep < 1:
        raise SdrrlError("--count must be 0 or at least 2, and --keep between 0 and 1")
    if not arguments.pairs and (arguments.chosen or arguments.page):
        raise SdrrlError("--chosen and --page belong to --pairs; name the file of judged translations")
    config = load_config(PreprocessConfig, arguments.config, arguments.overrides)
    import_plugins(config.plugins)
    import sdrrl_nemo.data.engines  # noqa: F401  registers the embedded engines

    if arguments.pairs:
        measure_judged(config, arguments)
    else:
        measure_corpus(config, arguments)
    return 0


def measure_corpus(config: PreprocessConfig, arguments: argparse.Namespace) -> None:
    """Measure on the configured parallel corpus; write the JSON and print two tables."""
    rows = {}
    for pair in progress(language_pairs(config), "measure"):
        rows[pair_name(pair)] = measure(config, pair, arguments.count, arguments.keep, arguments.identifiers)
    settings = {
        "keep": arguments.keep,
        "tau": config.quality.tau,
        "filters": [{"name": f.name, "options": f.options} for f in config.filters],
        "language_id": {k: getattr(config.language_id, k) for k in ("min_letters", "min_probability")},
        "seed": config.seed,
    }
    write_json(arguments.json, {"origin": provenance(), "settings": settings, "pairs": rows})
    if arguments.count:
        print("\n".join([*quality_table(rows, arguments.keep, config.quality.tau), ""]))
    print("\n".join(rejects_table(rows)))


if __name__ == "__main__":
    sys.exit(run(main))
