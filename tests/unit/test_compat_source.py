"""No module outside sdrrl_nemo/compat changes another project's modules and classes or leans on private parts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch import ROOT

OWN = ("recipes", "sdrrl_kernels", "sdrrl_nemo", "tests", "tools")
FOLDERS = ("kernels", "recipes", "sdrrl_nemo", "tools")
PUBLIC = {"os._exit"}
"""Documented though its name begins with an underscore."""


def _sources() -> dict[Path, str]:
    files = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
    return {p.relative_to(ROOT): p.read_text(encoding="utf-8") for p in files}


def _own_names(sources: dict[Path, str]) -> set[str]:
    """Every name that this project defines: attributes of its classes may be assigned from anywhere."""
    text = "\n".join(sources.values())
    return set(re.findall(r"\bself\.(\w+)(?::[^=\n]+)? = ", text)) | set(re.findall(r"^ +(\w+): ", text, re.M))


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _foreign_names(tree: ast.Module) -> set[str]:
    """Names bound to modules of others or to what they hold, and local names for those."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] not in OWN}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in OWN:
            names |= {a.asname or a.name for a in node.names}
    for node in ast.walk(tree):  # `cuda: Any = torch.cuda` and the like
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, (ast.Name, ast.Attribute)):
            continue
        if _root(node.value) in names:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return names


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, (ast.Assign, ast.Delete)):
        found = [x for t in node.targets for x in (t.elts if isinstance(t, ast.Tuple) else [t])]
    else:
        found = [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []
    return [t for t in found if isinstance(t, ast.Attribute) and _root(t) != "self"]


def _local_functions(tree: ast.Module) -> set[str]:
    """Functions defined inside functions: what a patch is usually made of."""
    inner: set[str] = set()
    for outer in ast.walk(tree):
        if isinstance(outer, ast.FunctionDef):
            inner |= {n.name for n in ast.walk(outer) if isinstance(n, ast.FunctionDef) and n is not outer}
    return inner


def _is_setattr(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr")


def _is_private(node: ast.AST, own: set[str]) -> bool:
    if not isinstance(node, ast.Attribute) or not re.match("_[^_]", node.attr) or node.attr in own:
        return False
    return _root(node) not in ("self", "cls") and ast.unparse(node) not in PUBLIC


def findings(text: str, own: set[str]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of one source text."""
    tree = ast.parse(text)
    foreign, local = _foreign_names(tree), _local_functions(tree)
    for node in ast.walk(tree):
        for target in _targets(node):
            value = getattr(node, "value", None)
            is_function = isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in local)
            root = _root(target)
            if root in foreign and ast.unparse(target) != "sys.argv":
                yield target.lineno, f"{ast.unparse(target)} of another project is assigned"
            elif is_function and target.attr not in own:
                yield target.lineno, f"the method {ast.unparse(target)} of an object is replaced"
        if _is_setattr(node) and _root(node.args[0]) in foreign:
            yield node.lineno, f"{ast.unparse(node)} changes another project"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] not in (*OWN, "__future__"):
            for name in [*node.module.split("."), *(a.name for a in node.names)]:
                if name.startswith("_"):
                    yield node.lineno, f"{node.module}.{name} is private"
        if _is_private(node, own):
            yield node.lineno, f"{ast.unparse(node)} is private"


def test_patches_are_in_compat_alone() -> None:
    sources = _sources()
    own = _own_names(sources) | set(re.findall(r"\bdef (\w+)", "\n".join(sources.values())))
    assert len(sources) > 150
    wrong = [
        f"{path}:{line}: {what}; move it to sdrrl_nemo/compat"
        for path, text in sources.items()
        if path.parts[:2] != ("sdrrl_nemo", "compat")
        for line, what in findings(text, own)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.cuda.synchronize = print",
        "import torch\nfrom typing import Any\ncuda: Any = torch.cuda\ncuda.Stream = cuda.Event = object",
        "import torch\ndef f():\n    import megatron.core.optimizer as o\n    setattr(o, 'Adam', torch.optim.Adam)",
        "from megatron.core.models.gpt import GPTModel\nGPTModel.forward = lambda self: None",
        "import numpy as np\nnp.product = np.prod",
        "def f(model):\n    def forward(x): return x\n    model.decoder.forward = forward",
        "def f(o):\n    o.prepare_grads = lambda: True",
        "from nemo.lightning._strategy_lib import init_model_parallel",
        "from torch.utils.data import _utils",
        "def f(node): return node._get_node('x')",
        "import numpy\ndel numpy.float_",
    ],
)
def test_a_patch_elsewhere_is_found(text: str) -> None:
    assert list(findings(text, {"own", "_mine"}))


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def f(self, x):\n        self.own = x\n        self._y = 1",
        "def f(config):\n    config.own = lambda: 1\n    return config._mine",
        "import sys\nsys.argv = ['a']",
        "import os\nos._exit(1)",
        "from sdrrl_nemo.compat import cpu\ncpu.x = 1",
    ],
)
def test_what_is_allowed(text: str) -> None:
    assert not list(findings(text, {"own", "_mine"}))
