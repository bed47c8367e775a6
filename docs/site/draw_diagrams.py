#!/usr/bin/env python3
"""Draw the pages' Mermaid diagrams into docs/site/diagrams/, after one has changed.

    npm pack mermaid@11.12.0 && tar xzf mermaid-11.12.0.tgz
    python docs/site/draw_diagrams.py --mermaid package/dist/mermaid.min.js

The site shows these pictures, so that it needs no network and no script to be read. Chromium draws them.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIAGRAMS = Path(__file__).parent / "diagrams"
BLOCK = re.compile(r"^```mermaid\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
PAGE = """<!doctype html><meta charset="utf-8"><pre class="mermaid">{source}</pre>
<script>{script}</script><script>
mermaid.initialize({{startOnLoad: true, theme: "neutral", htmlLabels: false,
                    flowchart: {{htmlLabels: false, wrappingWidth: 400}},
                    deterministicIds: true, fontFamily: "DejaVu Sans, Arial, sans-serif"}});
</script>"""


def diagram_name(source: str) -> str:
    """Name of a diagram's picture: it follows from the diagram, so that a changed one misses its picture."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


def draw(source: str, script: str, chromium: str) -> str:
    """The diagram as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE.format(source=html.escape(source), script=script), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        dom = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True).stdout
    found = re.search(r"<svg.*?</svg>(?=</pre>)", dom, re.DOTALL)
    if found is None or "Syntax error" in found[0]:
        raise SystemExit(f"error: Mermaid cannot draw the diagram that begins '{source.splitlines()[0]}'")
    return found[0].replace("\xa0", "&#160;") + "\n"


def main() -> None:
    """Draw what has no picture yet, remove pictures whose diagram is gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js of the npm package mermaid")
    parser.add_argument("--chromium", default="chromium")
    args = parser.parse_args()
    DIAGRAMS.mkdir(exist_ok=True)
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    sources = {diagram_name(s): s for p in pages for s in BLOCK.findall(p.read_text(encoding="utf-8"))}
    for picture in DIAGRAMS.glob("*.svg"):
        if picture.stem not in sources:
            picture.unlink()
    for name, source in sources.items():
        picture = DIAGRAMS / f"{name}.svg"
        if not picture.is_file():
            picture.write_text(draw(source, args.mermaid.read_text(encoding="utf-8"), args.chromium), encoding="utf-8")
            print(picture)


if __name__ == "__main__":
    main()
