"""The study's document -> one HTML file that needs nothing else, and a short table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sdrrl_nemo.common.fileio import atomic_write
from sdrrl_nemo.report.build import count, page_environment, to_plain_yaml
from sdrrl_nemo.report.charts import language_key, language_map
from sdrrl_nemo.report.study_charts import Dots, dot_chart, loss_curves, marker_key, tracking_chart

DECIMALS = {"nats/token": 3, "cosine": 3}
"""Decimals by unit; one for everything else (per cent, BLEU, chrF, COMET)."""
BASE = "base"
COUNT = "count"
"""State of a finding that claims nothing."""
TASKS = {
    "answers": "Held-out question",
    "translations": "Held-out translation",
    "mkqa": "MKQA",
    "xlsum": "XL-Sum",
    "off_target": "Instruction",
}


def write_study_report(document: dict[str, Any], path: Path) -> Path:
    """Render the page; returns its path."""
    with atomic_write(path) as f:
        f.write(render(document))
    return path


def render(document: dict[str, Any]) -> str:
    """The page as text; everything from outside is escaped."""
    environment = page_environment()
    environment.filters.update(figure=figure, signed=signed, count=count, column_title=column_title)
    rows = methods(document)
    titles = {m["name"]: m["title"] for m in rows}
    everything = [*document["measures"], *document["averages"]]
    return environment.get_template("study.html.j2").render(
        d=document,
        methods=rows,
        titles=titles,
        summary=findings(document),
        tables=language_tables(document),
        by_id={m["id"]: m for m in everything},
        charts=[{"measure": m, "svg": measure_chart(m, rows)} for m in document["measures"]],
        curves=loss_curves(in_order(document["curves"], titles), titles),
        maps=maps(document, rows),
        map_key=language_key(document["languages"]),
        tracking=tracking_chart(
            in_order(document["tracking"], titles), titles, document["languages"]["target"]["name"]
        ),
        keys=[(marker_key(k), text) for k, text in KEYS],
        beside=beside(document),
        configuration=to_plain_yaml(document["configuration"]),
        training=to_plain_yaml(document["training"]),
        tasks=[{**a, "kind": TASKS.get(a["task"].split(".", maxsplit=1)[0], a["task"])} for a in document["answers"]],
    )


def in_order(by_method: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    """The methods as the study lists them: a document read from its file has its keys sorted."""
    return {name: by_method[name] for name in titles if name in by_method}


def maps(document: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One t-SNE map a method that has one, with the figures it illustrates; base model and full method first."""
    names = {side: about["name"] for side, about in document["languages"].items()}
    measures = [m for m in document["measures"] if m["id"] in ("alignment.precision_at_1", "alignment.margin")]
    out = []
    for row in rows:
        found = document["maps"].get(row["name"])
        if found is None:
            continue
        numbers = []
        for m in measures:
            of_run_1 = next(iter(m["values"][row["name"]]["runs"].values()))
            numbers.append(f"{m['title']}: {figure(of_run_1, m['unit'])}{' %' if m['unit'] == '%' else ''}")
        points, texts = ({side: found[side][part] for side in names} for part in ("points", "texts"))
        svg = language_map(f"t-SNE of parallel questions, {row['title']}", points, texts, names)
        out.append({"title": row["title"], "kind": row["kind"], "svg": svg, "numbers": numbers})
    return sorted(out, key=lambda x: x["kind"] not in ("base", "reference"))


KEYS = (("base", "base model, not trained"), ("baseline", "baseline"), ("reference", "full method"),
        ("ablation", "ablation (Table 6)"))  # fmt: skip


def methods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Base model, baselines, full method, ablations: the rows of every table."""
    out = [{"name": BASE, "title": "Base model", "kind": "base"}]
    for m in document["methods"]:
        kind = "reference" if m["name"] == document["reference"] else "ablation" if m["ablation"] else "baseline"
        out.append({"name": m["name"], "title": m["title"], "kind": kind})
    return out


def figure(value: float | None, unit: str) -> str:
    """A number as people read it; a dash where nothing could be measured."""
    return "–" if value is None else f"{value:.{DECIMALS.get(unit, 1)}f}"


def signed(value: float | None, unit: str) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.{DECIMALS.get(unit, 1)}f}".replace("-", "−")


def measure_chart(measure: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Markup:
    """Dots of all methods that have the measure."""
    dots = []
    for row in rows:
        found = measure["values"].get(row["name"])
        if found is None or found["mean"] is None:
            continue
        runs = [v for v in found["runs"].values() if v is not None]
        dots.append(Dots(short(row["title"]), found["mean"], runs, row["kind"], figure(found["mean"], measure["unit"])))
    side = "left is better" if measure["better"] == "lower" else "right is better"
    return dot_chart(measure["title"], dots, f"{measure['unit']} ({side})")


def short(title: str) -> str:
    """A method's name for a chart's margin, 17 characters at most; ablations without the method they are taken from."""
    title = "− " + title.split(" − ", maxsplit=1)[1] if " − " in title else title
    return title if len(title) <= 17 else title[:16] + "…"


def column_title(measure: dict[str, Any], lang: str) -> str:
    """Head of a column in the table of a language, which need not be named again."""
    lower = ", lower is better" if measure["better"] == "lower" else ""
    return f"{measure['title'].removesuffix(f', {lang}')} ({measure['unit']}{lower})"


def language_tables(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One table a language (of the answers): its measures as columns, the averages last."""
    out = []
    for side in ("target", "source"):
        about = document["languages"][side]
        columns = [
            m for m in (*document["averages"], *document["measures"])
            if m["language"] == about["code"] and (m["group"] != "Averages" or len(m["parts"]) > 1)
        ]  # fmt: skip
        best = {m["id"]: best_of(m) for m in columns}
        if columns:
            out.append({"language": about, "columns": columns, "best": best})
    return out


def best_of(measure: dict[str, Any]) -> list[str]:
    """Names of the methods with the best mean, the base model included."""
    means = {m: v["mean"] for m, v in measure["values"].items() if v["mean"] is not None}
    if not means:
        return []
    best = (max if measure["better"] == "higher" else min)(means.values())
    return [m for m, v in means.items() if v == best]


def beside(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of published figures beside ours: measure, method, paper, here, difference."""
    out = []
    names = {m["name"]: m["title"] for m in document["methods"]}
    for measure in (*document["measures"], *document["averages"]):
        published = document["published"]["figures"].get(measure["id"], {})
        for name, paper in in_order(published, names).items():
            found = measure["values"].get(name)
            here = found["mean"] if found else None
            difference = None if here is None else here - paper
            out.append(
                {"measure": measure, "method": names[name], "paper": paper, "here": here, "difference": difference}
            )
    return out


def findings(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page says first, computed: {"title", "sentence", "state"} with state met, missed, "" or ``COUNT``."""
    out = [beyond_chance(document), _orderings(document)]
    for method in document["methods"]:
        if method["name"] != document["reference"] and not method["ablation"]:
            out.append(_against(document, method["name"], method["title"]))
    ablations = [m for m in document["methods"] if m["ablation"]]
    if ablations:
        out.append(_ablations(document, ablations))
    out.append(_source_language(document))
    return [x for x in out if x]


def full_title(document: dict[str, Any]) -> str:
    """Title of the full method, which all others are compared with."""
    return str(next(m["title"] for m in document["methods"] if m["name"] == document["reference"]))


def beyond_chance(document: dict[str, Any]) -> dict[str, Any]:
    """How much the study decided at all: differences to the full method that survive the correction."""
    rows = [*document["measures"], *document["averages"]]
    verdicts = [c["verdict"] for m in rows for c in m["comparisons"].values()]
    better, worse = verdicts.count("worse"), verdicts.count("better")  # the verdicts are the other one's
    full = full_title(document)
    sentence = (
        f"{better + worse} of {len(verdicts)} (every other method and the base model against {full}, measure by "
        f"measure): {full} is better on {better}, worse on {worse}."
    )
    return {"title": "Comparisons beyond chance", "sentence": sentence, "state": COUNT}


def _orderings(document: dict[str, Any]) -> dict[str, Any]:
    c = document["orderings"]["counts"]
    if not c["pairs"]:
        return {}
    sentence = (
        f"Of {c['pairs']} published pairs ({full_title(document)} against another method, "
        f"{document['published']['model']}) {c['holds']} have the same sign here, "
        f"{c['reversed']} the opposite one and {c['tie']} tie. Beyond chance: "
        f"{c['holds_beyond_chance']} in the paper's direction, {c['reversed_beyond_chance']} against it."
    )
    clear = c["holds_beyond_chance"] + c["reversed_beyond_chance"]
    state = "" if not clear else "met" if not c["reversed_beyond_chance"] else "missed"
    return {"title": "The paper's orderings", "sentence": sentence, "state": state}


def _tally(document: dict[str, Any], name: str, languages: Sequence[str]) -> dict[str, int]:
    """How often the full method is better, worse (clearly), or ahead and behind at all, against one other method."""
    rows = [m for m in document["measures"] if m["language"] in languages and name in m["comparisons"]]
    found = {"measures": len(rows), "better": 0, "worse": 0, "ahead": 0}
    for m in rows:
        c = m["comparisons"][name]
        found["better"] += c["verdict"] == "worse"  # the other is worse: the full method is better
        found["worse"] += c["verdict"] == "better"
        found["ahead"] += (c["difference"] < 0) == (m["better"] == "higher") and c["difference"] != 0
    return found


def _against(document: dict[str, Any], name: str, title: str) -> dict[str, Any]:
    codes = [document["languages"][side]["code"] for side in ("target", "source")]
    t = _tally(document, name, codes)
    if not t["measures"]:
        return {}
    sentence = (
        f"Ahead on {t['ahead']} of {t['measures']} measures; clearly better on {t['better']}, clearly worse on "
        f"{t['worse']}, the rest within chance."
    )
    return {"title": f"{full_title(document)} against {title}", "sentence": sentence, "state": _state(t)}


def _state(t: dict[str, int]) -> str:
    return "" if t["better"] == t["worse"] else "met" if t["better"] > t["worse"] else "missed"


def _ablations(document: dict[str, Any], ablations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    codes = [document["languages"][side]["code"] for side in ("target", "source")]
    parts = []
    total = {"better": 0, "worse": 0, "measures": 0}
    for m in ablations:
        t = _tally(document, m["name"], codes)
        if t["measures"]:
            parts.append(f"{m['title']}: {t['better']} worse, {t['worse']} better of {t['measures']}")
            total = {k: total[k] + t[k] for k in total}
    if not parts:
        return {}
    return {
        "title": "Taking a part away (clear differences)", "sentence": "; ".join(parts) + ".", "state": _state(total)
    }  # fmt: skip


def _source_language(document: dict[str, Any]) -> dict[str, Any]:
    """Whether the source language is kept: the full method against the base model."""
    about = document["languages"]["source"]
    t = _tally(document, BASE, [about["code"]])
    if not t["measures"]:
        return {}
    sentence = (
        f"{full_title(document)} against the base model on {t['measures']} measures in {about['name']}: clearly better "
        f"on {t['better']}, clearly worse on {t['worse']}."
    )
    state = "missed" if t["worse"] else "met" if t["better"] else ""
    return {"title": f"{about['name']} is kept", "sentence": sentence, "state": state}


def summary(document: dict[str, Any]) -> str:
    """The findings and the averages of every method, for the terminal."""
    marks = {"met": "[yes]", "missed": "[no] ", "": "[ – ]", COUNT: "     "}
    lines = [f"{marks[f['state']]} {f['title']}: {f['sentence']}" for f in findings(document)]
    shown = list(document["averages"]) or document["measures"][:4]
    rows = methods(document)
    width = max(len(m["title"]) for m in rows)
    lines.append("\n" + " " * width + "".join(f"  {m['id']:>16}" for m in shown))
    for row in rows:
        cells = ""
        for m in shown:
            found = m["values"].get(row["name"])
            text = "–" if found is None else figure(found["mean"], m["unit"])
            spread = f" ± {figure(found['sd'], m['unit'])}" if found and found["sd"] is not None else ""
            cells += f"  {text + spread:>16}"
        lines.append(f"{row['title']:<{width}}{cells}")
    if document["missing"]:
        lines.append(f"missing: {', '.join(document['missing'])}")
    return "\n".join(lines)
