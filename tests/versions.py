"""What a test cannot have on some Python, and why."""

from __future__ import annotations

import sys

import pytest

HAS_OFFICIAL_ROUGE = sys.version_info < (3, 13)
WITHOUT_OFFICIAL_ROUGE = pytest.mark.skipif(
    not HAS_OFFICIAL_ROUGE, reason="pyonmttok, which XL-Sum's official ROUGE needs, has no wheel for Python 3.13"
)
