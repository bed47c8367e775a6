"""Every random choice has a name; its seed follows from one root seed and that name alone."""

from __future__ import annotations

import hashlib
import random

import numpy as np


def derive_seed(root: int, *names: object) -> int:
    """63-bit seed for the purpose ``names`` under ``root``; independent of order of calls and of worker count."""
    text = "\x1f".join([str(int(root)), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def named_random(root: int, *names: object) -> random.Random:
    """Python generator for one named purpose (per-row choices: put the row's key among the names)."""
    return random.Random(derive_seed(root, *names))


def named_generator(root: int, *names: object) -> np.random.Generator:
    """NumPy generator for one named purpose (permutations of whole sets)."""
    return np.random.Generator(np.random.PCG64(derive_seed(root, *names)))
