"""Where parallel texts lie in representation space (paper, section 5: t-SNE of the last token's last state)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.common.seeding import derive_seed

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """Numbers behind the picture, from cosines of source question i with target question j.

    ``precision_at_1``: fraction of questions whose nearest neighbour in the other language is their own translation,
    mean of both directions; ``parallel`` and ``non_parallel``: mean cosine of i = j and of i != j.
    """

    precision_at_1: float
    parallel: float
    non_parallel: float
    hits: list[float]
    """Per question, mean of both directions: 0, 0.5 or 1."""
    margins: list[float]
    """Per question: its parallel cosine minus the mean of its non-parallel ones."""

    @property
    def margin(self) -> float:
        """Parallel minus non-parallel mean cosine."""
        return self.parallel - self.non_parallel


def alignment(source: Array, target: Array) -> Alignment:
    """Retrieval and cosine of parallel rows, both float32 [n, H] with n >= 2."""
    a = source.astype(np.float64) / np.linalg.norm(source.astype(np.float64), axis=1, keepdims=True)
    b = target.astype(np.float64) / np.linalg.norm(target.astype(np.float64), axis=1, keepdims=True)
    cosine = a @ b.T  # [n, n]
    n = len(cosine)
    own = np.diag(cosine)
    other_rows = (cosine.sum(1) - own) / (n - 1)
    other_columns = (cosine.sum(0) - own) / (n - 1)
    index = np.arange(n)
    hits = ((cosine.argmax(1) == index).astype(float) + (cosine.argmax(0) == index).astype(float)) / 2
    return Alignment(
        precision_at_1=float(hits.mean()),
        parallel=float(own.mean()),
        non_parallel=float((cosine.sum() - own.sum()) / (n * (n - 1))),
        hits=hits.tolist(),
        margins=(own - (other_rows + other_columns) / 2).tolist(),
    )


def check_perplexity(perplexity: float, points: int) -> None:
    """SdrrlError unless t-SNE can have so many neighbours."""
    if not 0 < perplexity < points:
        raise SdrrlError(f"alignment.perplexity is {perplexity}; with {points} points it must be below that, e.g. 5")


def tsne(source: Array, target: Array, perplexity: float, seed: int) -> tuple[Array, Array]:
    """Both sets in one 2-D map: float32 [n, 2] each; the same seed gives the same map."""
    points = np.concatenate([source, target])
    check_perplexity(perplexity, len(points))
    method = TSNE(
        n_components=2,
        perplexity=perplexity,
        init="pca",
        learning_rate="auto",
        random_state=derive_seed(seed, "tsne") % 2**32,
        n_jobs=1,
    )
    flat = method.fit_transform(points).astype(np.float32)
    return flat[: len(source)], flat[len(source) :]


def map_points(points: Array) -> list[list[float]]:
    """One side of a ``tsne`` map [n, 2] as JSON holds it; empty when the map is not finite."""
    return [[round(float(x), 4), round(float(y), 4)] for x, y in points] if np.isfinite(points).all() else []
