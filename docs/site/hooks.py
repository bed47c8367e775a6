"""What the site needs beside mkdocs.yml: pages from outside docs/, links, diagrams without a script.

The same Markdown is read in the repository and on the site. Links between pages follow the pages; a link to a file
that is no page (a configuration, the licence) becomes a link into the public repository where ``extra.repository``
names one, and else the file's path as text.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import xml.etree.ElementTree as etree
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[2]
DIAGRAMS = Path(__file__).parent / "diagrams"
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "data/README.md": "data.md",
    "data/benchmarks/README.md": "data_benchmarks.md",
}
"""Path in the repository -> page of the site."""
log = logging.getLogger("mkdocs.hooks.site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the public repository, if there is one, and let links be rewritten."""
    if config.extra["repository"]:
        config.repo_url = config.extra["repository"].rstrip("/")
    config.markdown_extensions.append(Links.as_extension(config))
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")  # anchors as GitHub names them
    fence = {"name": "mermaid", "class": "diagram", "format": diagram}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    Links.files = files
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remember which page is rendered next."""
    Links.page = page
    return markdown


class Links(Treeprocessor):
    """Rewrites each link of a page that leaves docs/; runs before MkDocs turns links to files into links to pages."""

    files: Files
    page: Page
    repository = ""

    @classmethod
    def as_extension(cls, config: MkDocsConfig) -> Extension:
        """The same as an extension of Markdown."""
        cls.repository = str(config.extra["repository"]).rstrip("/")

        class LinksExtension(Extension):
            def extendMarkdown(self, md: Markdown) -> None:
                md.treeprocessors.register(cls(md), "repository_links", 1)

        return LinksExtension()

    def run(self, root: etree.Element) -> None:
        """Called by Markdown for each page, and for each docstring, which has no such links."""
        for key, link in [(k, e) for tag, k in (("a", "href"), ("img", "src")) for e in root.iter(tag)]:
            target = link.get(key, "")
            if target and not target.startswith(("#", "/", "mailto:")) and "://" not in target:
                self._rewrite(link, key, target)

    def _rewrite(self, link: etree.Element, key: str, target: str) -> None:
        path, _, anchor = target.partition("#")
        own = self.page.file.src_uri
        source = next((s for s, page in OUTSIDE.items() if page == own), f"docs/{own}")
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = OUTSIDE.get(wanted, wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
        if page is not None and self.files.get_file_from_path(page) is not None:
            relative = posixpath.relpath(page, posixpath.dirname(own) or ".")
            link.set(key, relative + (f"#{anchor}" if anchor else ""))
        elif not (ROOT / wanted).exists():
            log.warning("%s: the link '%s' leads to no file of the repository", source, target)
        elif self.repository:
            link.set(key, f"{self.repository}/{'tree' if (ROOT / wanted).is_dir() else 'blob'}/HEAD/{wanted}")
        else:
            _as_path(link, wanted)


def _as_path(link: etree.Element, path: str) -> None:
    """``<a>text</a>`` -> ``text (path)``, or the path alone where the text says it already."""
    text = "".join(link.itertext())
    link.tag = "span"
    link.attrib.clear()
    if path.endswith(text.strip("`")):
        for child in list(link):
            link.remove(child)
        link.text = ""
        etree.SubElement(link, "code").text = path
        return
    if len(link):
        link[-1].tail = (link[-1].tail or "") + " ("
    else:
        link.text = f"{text} ("
    code = etree.SubElement(link, "code")
    code.text, code.tail = path, ")"


def diagram(source: str, language: str, css_class: str, options: Any, md: Markdown, **_: Any) -> str:
    """A Mermaid block as the picture that docs/site/diagrams/ holds of it: the page needs no script."""
    picture = DIAGRAMS / f"{diagram_name(source)}.svg"
    if not picture.is_file():
        log.warning("%s: no picture of a diagram, %s; python docs/site/draw_diagrams.py draws it", Links.page, picture)
        return f'<pre class="mermaid"><code>{source}</code></pre>'
    return f'<div class="{css_class}">{picture.read_text(encoding="utf-8")}</div>'


def diagram_name(source: str) -> str:
    """Name of a diagram's picture: it follows from the diagram, so that a changed one misses its picture."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]
