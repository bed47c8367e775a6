"""Docstrings as Markdown: Sphinx's roles become plain code, and <placeholders> stay text."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):(?=`)")
PLACEHOLDER = re.compile(r"(`+[^`]*`+)|<(?=[A-Za-z/])")


class PlainDocstrings(griffe.Extension):
    """Applied to every object that is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring, if there is one."""
        if obj.docstring is not None:
            text = ROLE.sub("", obj.docstring.value)
            obj.docstring.value = PLACEHOLDER.sub(lambda m: m[1] or "&lt;", text)
