"""The pages' tables of the demo say what docs/results says, and that file says what a run's folders hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.fileio import markers
from sdrrl_nemo.eval.compare import Measure
from tools.docs import demo_results, readme_table

BEGIN, END = markers("demo", readme_table.TOOL)

ROOT = Path(__file__).parents[3]
RESULTS = "docs/results/demo_por.json"
SHA256 = {"pairs.jsonl": "aa", "questions.jsonl": "bb"}
MEASURES = [
    Measure("loss.a", "Loss, A", "nats/token", "lower", 3.0, 2.5, (-0.6, -0.4)),
    Measure("off.b", "Off-target rate, B", "rate", "lower", 0.0, 0.25, (0.1, 0.4)),
    Measure("BLEU.c", "BLEU, C", "BLEU", "higher", 4.0, 3.96, None, 0.9),
    Measure("cosine.d", "Cosine, D", "cosine", "higher", 0.1, 0.1001, (-0.1, 0.1)),
    Measure("off.e", "Off-target rate, E", "rate", "lower", None, 0.5),
]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """What is read of a run: evaluation, training and data, with a step that was taken again after a resume."""
    evaluation, run, data = (tmp_path / name for name in ("eval/demo", "runs/demo", "data/demo"))
    rows = [m.as_dict() | {"samples": 4} for m in MEASURES]
    pairs = rows[0] | {"id": "loss.f", "kind": "translation", "samples": 5, "verdict": "no clear change"}
    results = {
        "title": "a demo",
        "held_out": {"pairs": 50, "questions": 30, "sha256": SHA256},  # the evaluation took fewer
        "configuration": {"run_dir": "work/runs/demo"},
        "provenance": {"machine": "a machine"},
        "seconds": {"base": {"x": 1.0}, "trained": {"x": 2.5}},
        "loss": [rows[0] | {"kind": "questions", "samples": 3}, pairs],
        "off_target": [rows[1], rows[4]],
        "translation": rows[2:3],
        "alignment": {"measures": rows[3:4]},
    }
    write(evaluation / "results.json", results)
    steps = [{"step": n, "tokens": 100 * n, "seconds": float(n)} for n in (1, 2, 2, 3)]
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(s) + "\n" for s in steps), encoding="utf-8")
    write(run / "finished.json", {"step": 3, "clipped_share": 0.0, "reason": "end of training"})
    write(run / "provenance.json", {"machine": "another machine"})
    files = {f"heldout/eng-por/{name}": sha256 for name, sha256 in SHA256.items()}
    stats = {"files": files, "stages": [{"seconds": 1.5}, {"seconds": 2.0}], "subsets": {"LL": {"samples": 7}}}
    write(data / "stats.json", stats)
    return evaluation, run, data


@pytest.fixture
def checkout(tmp_path: Path, folders: tuple[Path, Path, Path]) -> Path:
    """Both pages and the collected results of the folders."""
    root = tmp_path / "checkout"
    for name in readme_table.PAGES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "docs/results").mkdir()
    names = ("--eval", "--run", "--data")
    where = [word for pair in zip(names, map(str, folders), strict=True) for word in pair]
    assert demo_results.main([*where, "--output", str(root / RESULTS), "--seconds", "900"]) == 0
    return root


def test_the_pages_are_what_the_committed_results_say() -> None:
    assert readme_table.main(["--check"]) == 0


def test_both_pages_are_written_from_a_run(checkout: Path) -> None:
    with pytest.raises(SdrrlError, match=r"README\.md: differs from .*; run tools/docs/readme_table"):
        readme_table.main(["--check", "--root", str(checkout)])
    assert readme_table.main(["--root", str(checkout)]) == readme_table.main(["--check", "--root", str(checkout)]) == 0
    pages = {name: (checkout / name).read_text(encoding="utf-8") for name in readme_table.PAGES}
    for page in pages.values():
        table = page[page.index(BEGIN) : page.index(END)]
        assert "another machine; 3 steps, 600 tokens;" in table
        assert "on 3 questions and 5 pairs of sentences that training never saw, 4 of them translated:" in table
        assert "1 measures got better beyond chance and 1 worse; 1 got worse and 2 not worse within" in table
        lines = [line for line in table.splitlines() if line.startswith("|")][2:]
        assert lines[:6] == [
            "| **Better, beyond chance** | | | |",
            "| Loss, A, nats a token | 3.000 | 2.500 | -0.500 (-0.600 to -0.400) |",
            "| **Worse, beyond chance** | | | |",
            "| Off-target rate, B | 0.0% | 25.0% | +25.0 points (+10.0 to +40.0) |",
            "| **Worse, within what chance explains** | | | |",
            "| BLEU, C | 4.0 | 4.0 | +0.0 (p = 0.900) |",
        ]
    whole = "| Cosine, D | 0.100 | 0.100 | +0.000 (-0.100 to +0.100) |"
    assert whole in pages["docs/using.md"]
    assert whole not in pages["README.md"]
    own = {name: (ROOT / name).read_text(encoding="utf-8") for name in pages}
    for name, page in pages.items():  # nothing outside the markers changes
        assert page.split(BEGIN)[0] == own[name].split(BEGIN)[0]
        assert page.split(END)[1] == own[name].split(END)[1]


def test_a_page_without_its_markers_is_named(checkout: Path) -> None:
    page = checkout / "docs/using.md"
    page.write_text(page.read_text(encoding="utf-8").replace(END, ""), encoding="utf-8")
    with pytest.raises(SdrrlError, match=r"docs/using\.md: needs the lines"):
        readme_table.main(["--root", str(checkout)])


def test_the_results_are_those_of_the_folders(checkout: Path) -> None:
    found = json.loads((checkout / RESULTS).read_text(encoding="utf-8"))
    assert [m["id"] for m in found["measures"]] == ["loss.a", "loss.f", "off.b", "off.e", "BLEU.c", "cosine.d"]
    assert found["training"] == {
        "steps": 3,
        "tokens": 600,
        "seconds": 6.0,
        "clipped_share": 0.0,
        "provenance": {"machine": "another machine"},
    }
    assert found["data"] == {"seconds": 3.5, "subsets": {"LL": 7}}
    assert (found["evaluation"]["seconds"], found["make_demo_seconds"]) == (3.5, 900)


def test_folders_that_do_not_belong_together_are_refused(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    evaluation, run, data = folders
    with pytest.raises(SdrrlError, match="compares the run work/runs/demo, not"):
        demo_results.collected(evaluation, tmp_path / "runs/other", data, None)
    write(run / "finished.json", {"step": 4, "clipped_share": 0.0})
    with pytest.raises(SdrrlError, match="holds 3 of 4 steps"):
        demo_results.collected(evaluation, run, data, None)
    write(data / "stats.json", {"files": {"heldout/eng-por/pairs.jsonl": "cc"}, "stages": [], "subsets": {}})
    with pytest.raises(SdrrlError, match="judged other held-out texts"):
        demo_results.collected(evaluation, run, data, None)
