"""A finished transfer set -> data_card.html and data_card.md: what is in it, what was dropped and why, samples.

The card follows from the files of the set alone, so it can be written again at any time, and it holds no time of day:
the same set gives the same card.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import atomic_write, canonical_json
from sdrrl_nemo.data.methods import METHODS
from sdrrl_nemo.data.text.languages import LANGUAGES
from sdrrl_nemo.report import card_charts as charts
from sdrrl_nemo.report.build import SUBSET_MEANING, count, page_environment, to_plain_yaml
from sdrrl_nemo.report.card_answers import answer_counts, margin, synth_draws
from sdrrl_nemo.report.card_facts import HELD_OUT, Facts, Row, base_name, collect, plain_reason, quantile, scope_of
from sdrrl_nemo.report.card_turns import history_of, mask_rows, text_notes, turn_counts
from sdrrl_nemo.report.front_matter import dataset_head

FILES = ("data_card.html", "data_card.md")
SAMPLES, REJECTS = 20, 10
"""Drawn samples of each subset, and drawn rejects of each reason."""
LONG = 700
"""Characters from which on a text is folded; the card holds it whole."""
UNITS = {
    "ingest": "instructions",
    "generate": "questions",
    "sample": "questions",
    "translate": "translations",
    "quality": "translations",
    "heuristics": "translations",
    "language-id": "translations",
    "round-trip": "translations",
    "llm-judge": "translations",
    "duplicates": "questions",
    "parallel": "sentence pairs",
}
"""What a stage counts; the others count samples."""
NOT_ASKED_FOR = {"beyond instructions.limit", "not needed"}
"""Reasons that say nothing against a row: more were found than the configuration asks for."""
ORIGINS = {
    "y": "answer from the instruction set (y)",
    "y_hat": "the model's own answer (ŷ)",
    "parallel": "from the parallel corpus",
}
ROLES = {
    "generator": "model",
    "translator": "translator",
    "quality": "quality estimator",
    "language_id": "language identifier",
    "round_trip": "translator back",
    "llm_judge": "LLM judge",
    "dictionary": "dictionary",
    "corpus": "parallel corpus",
    "instructions": "instruction set",
}
TEXT_FIELDS = ("question", "answer", "source", "target", "text")
"""Fields of a reject that hold text to read."""
NO_COMMERCE = re.compile(r"(?<![A-Za-z])NC(?![A-Za-z])|non-?commercial", re.IGNORECASE)
SHARE_ALIKE = re.compile(r"(?<![A-Za-z])(SA|[AL]?GPL)(?![A-Za-z])")
UNSTATED = re.compile(r"unstated|unknown|not stated", re.IGNORECASE)


def write_data_card(directory: str | Path, output: str | Path | None = None, samples: int = SAMPLES) -> Path:
    """Write data_card.html and data_card.md of the finished set in ``directory``, into ``output`` or beside the set.

    Returns the path of the HTML file. SdrrlError when the set is unfinished, damaged or incomplete.
    """
    if samples < 0:
        raise SdrrlError(f"{samples} samples cannot be shown; give 0 or more")
    view = make_view(collect(directory, samples, min(samples, REJECTS)))
    folder = Path(output) if output is not None else Path(directory)
    for name, autoescape in zip(FILES, (True, False), strict=True):
        with atomic_write(folder / name) as f:
            f.write(render(f"{name}.j2", view, autoescape))
    return folder / FILES[0]


def render(template: str, view: dict[str, Any], autoescape: bool) -> str:
    """One of the two files as text; everything from outside is escaped for its format."""
    environment = page_environment(autoescape)
    environment.filters.update(
        count=count, share=share, cell=markdown_cell, fence=markdown_fence, lang=html_language, language=language_name
    )
    return environment.get_template(template).render(view, long=LONG)


def share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{100 * value:.1f} %"


def language_name(code: str) -> str:
    """English name of an ISO 639-3 code; the code itself where the table of languages lacks it."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def html_language(code: str) -> str:
    """BCP 47 tag for the attribute ``lang``: the shortest code of the language."""
    return LANGUAGES[code].cld3 if code in LANGUAGES else code


def markdown_cell(text: Any) -> str:
    """Text inside a line or a table cell: nothing in it is markup."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(str(text).split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_fence(text: str) -> str:
    """A code block around any text: its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def make_view(facts: Facts) -> dict[str, Any]:
    """Everything the templates show."""
    stats = facts.stats
    kinds = kind_rows(facts)
    stages = stage_rows(facts)
    training, held = ([s for s in stages if s["held_out"] == side] for side in (False, True))
    reasons = [r for s in training for r in s["reasons"] if r["reason"] not in NOT_ASKED_FOR]
    languages = identified_rows(facts)
    title = f"Transfer set, {direction(stats['pairs'])}"
    return {
        "title": title,
        "head": dataset_head(stats, title).rstrip(),
        "method": METHODS[stats["method"]].title if stats["method"] in METHODS else stats["method"],
        "stats": stats,
        "manifest": facts.manifest,
        "pairs": [p.split("-") for p in stats["pairs"]],
        "overview": overview(facts),
        "licences": licence_rows(stats),
        "restrictions": restrictions(licence_rows(stats)),
        "kinds": kinds,
        "subsets": subset_rows(facts),
        "languages": language_rows(facts),
        "stages": training,
        "held_out_stages": held,
        "by_pair": pair_rows(facts),
        "synth": synth_draws(stats),
        "answers": answer_counts(stats),
        "fullness": facts.lengths.samples_in_pack,
        "scores": score_rows(facts),
        "switching": switch_rows(facts),
        "switched": switched_shares(facts),
        "identified": languages,
        "charts": {
            "subsets": charts.subset_chart(kinds),
            "stages": charts.stage_chart("Kept and dropped by each stage", training),
            "reasons": charts.reason_chart(reasons),
            "lengths": charts.length_charts(facts, kinds),
            "fullness": charts.fullness_chart(facts),
            "languages": charts.language_chart(languages),
        },
        "turns": turn_counts(facts),
        "text_notes": text_notes(facts),
        "masks": mask_rows(facts),
        "samples": [(name, sample_rows(facts, name)) for name in facts.names],
        "rejects": reject_groups(facts),
        "rejects_not_drawn": facts.rejects.not_drawn,
        "configuration": to_plain_yaml(stats["configuration"]) if stats.get("configuration") else "",
        "seed": facts.seed,
    }


def direction(pairs: list[str]) -> str:
    """``English → Portuguese, Czech``: the pairs of a run by source."""
    targets: dict[str, list[str]] = {}
    for pair in pairs:
        source, _, target = pair.partition("-")
        targets.setdefault(language_name(source), []).append(language_name(target))
    return "; ".join(f"{source} → {', '.join(names)}" for source, names in targets.items())


def overview(facts: Facts) -> list[tuple[str, str]]:
    """(what, figure) of the whole set."""
    stats, packing = facts.stats, facts.stats["packing"]
    answers = sum(s["answer_tokens"] for s in stats["subsets"].values())
    generators = sorted({e["identity"] for e in stats["engines"] if e["role"] == "generator"})
    model = Path(str((stats.get("configuration") or {}).get("model", ""))).name
    return [
        ("Base model", model or ", ".join(generators) or "not recorded"),
        ("Samples", f"{packing['samples']:,}"),
        ("Tokens", f"{packing['tokens']:,}"),
        ("Answer tokens", f"{answers:,} ({share(answers / packing['tokens'])})"),
        ("Packs", f"{packing['packs']:,} of {packing['seq_length']:,} tokens"),
        ("Packing efficiency", f"{100 * packing['packing_efficiency']:.2f} %"),
        (
            "Held out",
            ", ".join(f"{sum(h[k] for h in stats['heldout'].values()):,} {k}" for k in ("questions", "pairs")),
        ),
        ("Loss", f"equation {stats['loss']['equation']}, {stats['loss']['sample_reduction']} over samples"),
    ]


def kind_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each kind of subset (LL, mt, sft, ...), over all pairs."""
    total = facts.stats["packing"]
    rows: dict[str, dict[str, Any]] = {}
    for name in facts.names:
        kind, own = base_name(name), facts.stats["subsets"][name]
        meaning = SUBSET_MEANING.get(kind, METHODS[kind].title if kind in METHODS else "")
        row = rows.setdefault(kind, {"name": kind, "meaning": meaning, "subsets": []} | dict.fromkeys(own, 0))
        row["subsets"].append(name)
        for key in ("samples", "tokens", "answer_tokens", "weight"):
            row[key] += own[key]
    for row in rows.values():
        row["of_samples"], row["of_tokens"] = row["samples"] / total["samples"], row["tokens"] / total["tokens"]
        row["weight"] = row["weight"] if len(row["subsets"]) == 1 else None
    return list(rows.values())


def subset_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each subset: counts, weight of a sample in the loss, token quantiles."""
    rows = []
    for i, name in enumerate(facts.names):
        text, own = facts.texts.subsets[name], facts.stats["subsets"][name]
        row = {"name": name, "kind": base_name(name), "pair": text.pair, **own}
        for side, table in (("question", facts.lengths.question[i]), ("answer", facts.lengths.answer[i])):
            row[side] = [quantile(table, q) for q in (0.5, 0.95, 1.0)]
        rows.append(row)
    return rows


def language_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each language of a question or an answer, in the order of the pairs."""
    order = list(dict.fromkeys(code for pair in facts.stats["pairs"] for code in pair.split("-")))
    found = facts.texts.languages
    return [{"code": c, **vars(found[c])} for c in sorted(found, key=lambda c: (c not in order, *_place(order, c)))]


def _place(order: list[str], code: str) -> tuple[int, str]:
    return (order.index(code) if code in order else len(order), code)


def stage_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each kind of stage, summed over pairs, with its reasons; most frequent first."""
    rows: dict[str, dict[str, Any]] = {}
    for stage in facts.stats["stages"]:
        name = base_name(stage["name"])
        held = name.startswith(HELD_OUT)
        unit = UNITS.get(name.removeprefix(HELD_OUT), "samples")
        empty = {"name": name, "unit": unit, "held_out": held, "in": 0, "out": 0}
        row = rows.setdefault(name, {**empty, "dropped": Counter(), "notes": Counter()})
        row["in"] += stage["in"]
        row["out"] += stage["out"]
        row["notes"].update(stage.get("notes") or {})
        for reason, n in (stage.get("dropped") or {}).items():
            row["dropped"][plain_reason(reason, facts.names)] += n
    for row in rows.values():
        row["spare"] = sum(n for r, n in row["dropped"].items() if r in NOT_ASKED_FOR)
        ordered = sorted(row["dropped"].items(), key=lambda kv: (-kv[1], kv[0]))
        row["reasons"] = [
            {"stage": row["name"], "reason": r, "rows": n, "share": n / row["in"] if row["in"] else None}
            for r, n in ordered
        ]
    return list(rows.values())


def pair_rows(facts: Facts) -> dict[str, Any] | None:
    """Of several pairs: what each stage kept for each of them; None for one pair."""
    pairs = facts.stats["pairs"]
    if len(pairs) < 2:
        return None
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in facts.stats["stages"]:
        name, scope = base_name(stage["name"]), stage["name"].partition(".")[2]
        if scope in pairs and not name.startswith(HELD_OUT):
            kept.setdefault(name, {})[scope] = stage
    kinds = list(dict.fromkeys(base_name(name) for name in facts.names))
    samples = {pair: Counter[str]() for pair in pairs}
    for name, text in facts.texts.subsets.items():
        if text.pair in samples:
            samples[text.pair][base_name(name)] += text.rows
    return {"stages": kept, "kinds": kinds, "samples": samples}


def score_rows(facts: Facts) -> list[dict[str, Any]]:
    """One row for each quality stage whose scores were kept."""
    entered = {s["name"]: s for s in facts.stats["stages"]}
    return [
        {
            "pair": s.pair,
            "engine": s.engine,
            "tau": s.tau,
            "scored": sum(c.total() for c in s.counts.values()),
            "chart": charts.score_chart(s),
            "below": sum((entered[s.stage].get("dropped") or {}).values()),
        }
        for s in facts.scores
    ]


def switch_rows(facts: Facts) -> list[dict[str, Any]]:
    """Observed rate of code-switching (Eq. 5) for each pair: replaced words of those that the dictionary has."""
    rows = []
    for stage in facts.stats["stages"]:
        if base_name(stage["name"]) == "code-switch":
            notes = stage.get("notes") or {}
            found, replaced = notes.get("tokens in the dictionary", 0), notes.get("tokens replaced", 0)
            pair = scope_of(stage["name"], facts.stats["pairs"])
            wanted = (facts.settings.get(stage["name"]) or {}).get("probability")
            rate = replaced / found if found else None
            rows.append({"pair": pair, "found": found, "replaced": replaced, "rate": rate, "wanted": wanted,
                         "margin": margin(wanted, found) if wanted is not None else None})  # fmt: skip
    return rows


def switched_shares(facts: Facts) -> dict[str, float]:
    """Kind of subset -> share of its samples with a replaced word, where code-switching was at work."""
    seen, hit = Counter[str](), Counter[str]()
    for name in facts.names:
        text = facts.texts.subsets[name]
        seen[base_name(name)] += text.switchable
        hit[base_name(name)] += text.switched
    return {kind: hit[kind] / n for kind, n in seen.items() if n}


def identified_rows(facts: Facts) -> list[dict[str, Any]]:
    """What language-id kept, and what it took the others for, for each pair."""
    rows = []
    for stage in facts.stats["stages"]:
        if base_name(stage["name"]) == "language-id":
            found = facts.rejects.identified.get(stage["name"], Counter())
            others = sorted(found.items(), key=lambda kv: (-kv[1], kv[0]))
            pair = scope_of(stage["name"], facts.stats["pairs"])
            rows.append({"pair": pair, "entered": stage["in"], "kept": stage["out"], "others": others})
    return rows


def licence_rows(stats: dict[str, Any]) -> list[dict[str, Any]]:
    """Role, name, licence and whether it forbids commercial use, of every engine and of what else the run recorded."""
    rows = []
    for part in [*stats["engines"], *(stats.get("licences") or [])]:
        licence = str(part.get("licence", "unstated"))
        forbids = bool(part.get("noncommercial")) or NO_COMMERCE.search(licence) is not None
        about = {key: str(part.get(key, "")) for key in ("role", "name", "for", "identity")}
        rows.append({**about, "role": ROLES.get(about["role"], about["role"]), "licence": licence, "forbids": forbids})
    return rows


def restrictions(rows: list[dict[str, Any]]) -> list[str]:
    """What the licences ask of whoever uses the set, one sentence each; the strictest first."""
    forbidding = [r for r in rows if r["forbids"]]
    alike = [r for r in rows if SHARE_ALIKE.search(r["licence"])]
    unstated = [r for r in rows if UNSTATED.search(r["licence"])]
    if forbidding:
        out = [f"Not for commercial use: the licence of {_named(forbidding)} forbids it."]
    else:
        out = ["No licence that the run recorded forbids commercial use."]
    if alike:
        out.append(f"Share alike: {_named(alike)} may ask that what is derived from it is passed on under its terms.")
    if unstated:
        out.append(f"No licence is stated for {_named(unstated)}: ask the publisher before the set is passed on.")
    if not any(r["role"] == ROLES["instructions"] for r in rows):
        out.append("The run does not record the licence of the instruction set; it applies too.")
    return out


def _named(rows: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(f"{r['role']} {r['name']} ({r['licence']})" for r in rows))


def sample_rows(facts: Facts, name: str) -> list[dict[str, Any]]:
    """The drawn samples of a subset."""
    return [
        {
            "key": row["key"],
            "origin": ORIGINS.get(row.get("origin", ""), row.get("origin", "")),
            "asked": row["question_language"],
            "answered": row["answer_language"],
            "question": row["question"],
            "answer": row["answer"],
            "plain": row.get("question_plain") if row.get("switched") else None,
            "switched": row.get("switched"),
            **history_of(row),
        }
        for row in facts.texts.draw[name]
    ]


def reject_groups(facts: Facts) -> list[dict[str, Any]]:
    """The drawn rejects by stage and reason, in the order of the stages, most frequent reason first."""
    order = {name: i for i, name in enumerate(dict.fromkeys(base_name(s["name"]) for s in facts.stats["stages"]))}
    groups = []
    for group, n in facts.rejects.counts.items():
        stage, _, reason = group.partition("\t")
        rows = [reject_row(row, facts.stats["pairs"]) for row in facts.rejects.draw[group]]
        groups.append({"stage": stage, "reason": reason, "count": n, "rows": rows})
    return sorted(groups, key=lambda g: (order.get(g["stage"], len(order)), -g["count"], g["reason"]))


def reject_row(row: Row, pairs: list[str]) -> dict[str, Any]:
    """One reject: its texts with their languages as far as they are known, and what else the stage said."""
    scope = scope_of(row["stage"], pairs)
    source, _, target = scope.partition("-")
    codes = {"source": source, "target": target, "question": "" if row["stage"] in ("order", "tokenize") else source}
    texts = [
        (name, row[name], row.get(f"{name}_language", codes.get(name, "")))
        for name in TEXT_FIELDS
        if isinstance(row.get(name), str)
    ]
    about = [f"exchange {row['turn']}"] if "turn" in row else []
    about += [str(row[k]) for k in ("component", "detail") if row.get(k)]
    if not texts and row.get("row") is not None:
        texts = [("row", canonical_json(row["row"]), "")]
    return {"key": row.get("key") or "", "scope": scope, "about": ", ".join(about), "texts": texts}
