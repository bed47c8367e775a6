"""Documents are true of the checkout: each command is run or checked by what it names, each link and page resolves.

A command that is printed to be run whole is given to its own parser and configuration class; a kind of command that is
not known here fails. What is cheap and changes nothing is run exactly as printed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs_checks import WrongCommand, check_code, check_line
from tests.docs_commands import (
    PROGRAMS,
    ROOT,
    SCRIPT,
    Block,
    anchors,
    blocks,
    documents,
    inline_code,
    is_inline_command,
    links,
    name_of,
    shell_lines,
    simple_commands,
)

DATA_LANGUAGES = {"diff", "json", "mermaid", "text", "yaml"}  # test_tour.py applies the diffs
SHELL_LANGUAGES = {"sh", "bash", "shell"}
NOT_COMMANDS = {
    "w = S / (|D_d| · answer tokens of the sample)          S = steps in an epoch": "a formula",
    "step = (micro-batches + (p - 1) / v) x slowest stage + gradient reduction + optimiser": "a formula",
    "P: {passage}": "a prompt",
    "output_dir/transfer_set.jsonl     samples as text, in final order; fields key, subset, question, answer, their "
    "languages,": "a list of files",
}
"""First lines of blocks that are neither commands nor code nor YAML, and what they are."""
HARMLESS = ("--help", "--version")
QUICK_SCRIPTS = ("tools/plan.py", "tools/bench/roofline.py", "sdrrl plan", "sdrrl languages", "make help")


def is_python(block: Block) -> bool:
    return block.language == "python" or (
        block.language == "" and block.first.startswith(("from ", "import ")) and not block.first.startswith("from ->")
    )


def is_yaml(block: Block) -> bool:
    try:
        return isinstance(yaml.safe_load(block.text), dict)
    except yaml.YAMLError:
        parts = block.text.split("\n    ")  # several alternatives of one key
        return len(parts) > 1 and all(":" in part for part in parts)


def is_shell(block: Block) -> bool:
    if block.language in SHELL_LANGUAGES:
        return True
    words = next(iter(simple_commands(block.first.replace("'", "").replace("\\", ""))), [""])
    own = Path(words[0]).name if words[0].startswith(".venv") else words[0]
    from tests.docs_checks import EXTERNAL

    return block.language == "" and (own in (*PROGRAMS, *EXTERNAL, "python3.11") or SCRIPT.fullmatch(own) is not None)


ALL_BLOCKS = [block for path in documents() for block in blocks(path)]
COMMANDS = [(block.where, line) for block in ALL_BLOCKS if is_shell(block) for line in shell_lines(block.text)]
INLINE = sorted(
    {(name_of(path), piece) for path in documents() for piece in inline_code(path) if is_inline_command(piece)}
)


def test_something_was_found() -> None:
    assert len(documents()) > 20 and len(COMMANDS) > 40 and len(INLINE) > 40
    assert any("sdrrl train" in line for _, line in COMMANDS)


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=lambda b: f"{b.where}: {b.first[:40]}")
def test_each_block_is_of_a_known_kind(block: Block) -> None:
    known = block.language in DATA_LANGUAGES or is_shell(block) or is_python(block) or block.first in NOT_COMMANDS
    assert known or is_yaml(block), f"{block.where}: what is the block that begins '{block.first}'?"
    if is_python(block):
        check_code(block.text)


@pytest.mark.parametrize(("where", "line"), COMMANDS)
def test_a_printed_command_would_be_taken(where: str, line: str) -> None:
    check_line(line, whole="..." not in line and "…" not in line)


@pytest.mark.parametrize(("where", "piece"), INLINE)
def test_a_command_in_a_sentence_names_what_exists(where: str, piece: str) -> None:
    check_line(piece, whole=False)


def runs(line: str) -> bool:
    """Whether a command is run here: it is whole, cheap, and leaves nothing behind."""
    plain = " ".join(line.split())
    words = plain.split()
    quick = plain.startswith(QUICK_SCRIPTS) or any(word in words for word in HARMLESS)
    quick = quick and plain not in ("sdrrl plan", "tools/plan.py")  # names in a sentence
    return quick and "..." not in line and not any(w in plain for w in ("--json", "FILE"))


RUN = sorted({re.sub(r"\s+# .*", "", line) for _, line in [*COMMANDS, *INLINE] if runs(line)})


@pytest.fixture(scope="module")
def path_after_install(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PATH as it is after ``source .venv/bin/activate``; where this environment lacks ``sdrrl``, the checkout's."""
    folder = Path(sys.executable).parent
    before = [str(folder)]
    if not (folder / "sdrrl").is_file():
        shim = tmp_path_factory.mktemp("bin") / "sdrrl"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sdrrl_nemo "$@"\n')
        shim.chmod(0o755)
        before.insert(0, str(shim.parent))
    return os.pathsep.join([*before, os.environ["PATH"]])


@pytest.mark.parametrize("line", RUN)
def test_a_cheap_command_runs_as_printed(line: str, path_after_install: str) -> None:
    environment = os.environ | {
        "PATH": path_after_install,
        "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert done.stdout.strip()


def test_the_cheap_commands_are_among_those_found() -> None:
    text = "\n".join(RUN)
    assert all(part in text for part in ("plan", "roofline.py", "--help", "make help")), RUN


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_links_and_anchors_resolve(path: Path) -> None:
    for target in links(path):
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name_of(path)}: the link '{target}' leads nowhere"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name_of(path)}: '{target}': no such heading"


def read_mkdocs() -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """mkdocs.yml, whose ``!ENV`` names a variable and its default."""

    Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node)[-1])
    found = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert isinstance(found, dict)
    return found


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def outside() -> dict[str, str]:
    """OUTSIDE of docs/site/hooks.py, which needs MkDocs to be imported."""
    tree = ast.parse((ROOT / "docs" / "site" / "hooks.py").read_text(encoding="utf-8"))
    found = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "OUTSIDE"]
    value = ast.literal_eval(found[0])
    assert isinstance(value, dict)
    return value


def test_every_page_is_in_the_sites_navigation_once() -> None:
    pages = pages_of(read_mkdocs()["nav"])
    written = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").glob("**/*.md")]
    assert sorted(pages) == sorted([*written, *outside().values()])
    assert all((ROOT / source).is_file() for source in outside())


def test_diagrams_have_their_pictures() -> None:
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    try:
        from draw_diagrams import DIAGRAMS, diagram_name  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    sources = [b.text for b in ALL_BLOCKS if b.language == "mermaid"]
    assert sources and {f"{diagram_name(s)}.svg" for s in sources} == {p.name for p in DIAGRAMS.iterdir()}


def test_the_public_workflow_runs_commands_that_exist() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    for line in lines:
        check_line(line, whole=True)
    assert {"make test-all PYTHON=python", "make demo-short PYTHON=python", "make docs PYTHON=python"} == set(lines)
    versions = jobs["test"]["strategy"]["matrix"]["python"]
    stated = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert versions == stated, "the workflow tests the Pythons that the package states"


def test_bug_reports_ask_for_what_is_needed() -> None:
    forms = {p.name: yaml.safe_load(p.read_text(encoding="utf-8")) for p in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()}
    asked = {field["id"]: field for field in forms["bug_report.yml"]["body"]}
    assert {"command", "happened", "configuration", "doctor"} <= set(asked)
    assert asked["doctor"]["validations"]["required"] and "sdrrl doctor" in asked["doctor"]["attributes"]["label"]
    for name in ("bug_report.yml", "feature_request.yml"):
        assert {"name", "description", "body"} <= set(forms[name])


def test_citation_names_software_and_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)
    (paper,) = cited["references"]
    authors = ["Zhang", "Wang", "Liu", "Wang", "Wang", "Li", "Sun", "Liu"]
    assert paper["year"] == 2024 and [a["family-names"] for a in paper["authors"]] == authors
    assert " ".join(paper["title"].split()) in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


WRONG = [
    "make no-such-target",
    "make demo NOSUCHVARIABLE=1",
    "tools/no_such.py --help",
    "tools/plan.py --config configs/llama2_7b_a800x8.yaml --gpus 8 --no-such-option 3",
    "tools/plan.py --config configs/no_such.yaml",
    "tools/preprocess_sdrrl.py --config configs/data/demo_por.yaml quality.taus=0.6",
    "torchrun --nproc-per-node 2 recipes/sdrrl_pretrain.py --config configs/demo_por.yaml trainer.tpp=1",
    "torchrun --nproc-per-nodes 2 recipes/sdrrl_pretrain.py --config configs/demo_por.yaml",
    "sdrrl no-such-subcommand",
    "sdrrl train --no-such-torchrun-option 2 --config configs/demo_por.yaml",
    "sdrrl export --run work/runs/demo_por",
    "sdrrl data-card --data x --samples many",
    "sdrrl evaluate --config configs/eval/benchmarks_por.yaml no_such=1",
    "pip install -e '.[no-such-extra]'",
    "pip install -r requirements/no-such.txt",
    "python -m tests.distributed.no_such",
    "python -m tests.distributed.chaos --no-such 3",
    "python tools/bench/data_cost.py --anything",
    "python -c 'from kernels.api import cross_entropy'",
    "python -c 'from sdrrl_nemo.eval.reference import no_such_name'",
    "pytest tests/no_such.py",
    "pytest tests/unit/kernels -m no_such_marker",
    "docker build -f configs/clusters/NoSuchDockerfile .",
    "unheard-of --option",
    "make demo && unheard-of",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(WrongCommand):
        check_line(line, whole=True)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_each_page_starts_with_what_it_is_for(page: Path) -> None:
    title, first = page.read_text(encoding="utf-8").split("\n\n", 2)[:2]
    assert title.startswith("# ")
    assert first.startswith("This page "), f"{page.name}: the first paragraph says what the page is for"
    assert first.endswith((".", "it."))
