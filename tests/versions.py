"""What a test cannot have on some Python, and why."""

from __future__ import annotations

import sys

import pytest

WITHOUT_OFFICIAL_ROUGE = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="pyonmttok, which XL-Sum's official ROUGE needs, has no wheel for Python 3.13"
)
