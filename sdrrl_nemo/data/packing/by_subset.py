"""``packing.by: subset``: one packed set for each subset and pair, so that training may draw from each as often as it
wants, and ``blend.json`` and ``blend.txt`` beside them.

``packed/<pair>/<subset>.*`` are the sets for training, ``packed/<pair>/validation/<subset>.*`` those held out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.data.packing.blend_files import merged_manifest, write_blend
from sdrrl_nemo.data.rows import TokenizedRow


class Part(NamedTuple):
    """A subset of one pair: ``pair`` (``eng-por``) and the subset's name of Eq. 6 (``LL``, or ``LL.eng-por``)."""

    pair: str
    subset: str

    @property
    def prefix(self) -> str:
        """Where its set lies under ``packed/``: the pair stands in the folder's name, and not again in the file's."""
        return f"{self.pair}/{self.subset.removesuffix(f'.{self.pair}')}"


class WriteSet(Protocol):
    """Writes rows as the packed set ``prefix`` (under ``packed/``) and gives its manifest."""

    def __call__(
        self, prefix: str, rows: Iterable[TokenizedRow], subset_names: Sequence[str], **about: Any
    ) -> dict[str, Any]: ...


def clear(folder: Path, kept: str) -> None:
    """Remove from ``packed/`` what a run with another configuration left, but for the files of the set ``kept``, which
    are replaced one by one."""
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif not kept or not path.name.startswith(f"{kept}."):
            path.unlink()


def write_by_subset(
    folder: Path,
    parts: Sequence[Part],
    rows: Callable[[], Iterable[TokenizedRow]],
    held_out: Callable[[TokenizedRow], bool],
    write: WriteSet,
) -> dict[str, Any]:
    """Write the sets of ``parts``, each in a pass of its own over ``rows``; returns what the manifests of those for
    training say together.

    A part without rows has no set: of a subset that several pairs share, one pair may have none.
    """
    sets: list[dict[str, Any]] = []
    manifests: list[dict[str, Any]] = []
    for part in parts:
        about = {"pair": part.pair, "subset_names": [part.subset]}
        train = _of(rows(), part, lambda row: not held_out(row))
        if train is None:
            continue
        manifest = write(part.prefix, train, **about)
        manifests.append(manifest)
        sets.append(_entry(part, manifest))
        if (held := _of(rows(), part, held_out)) is not None:
            pair, name = part.prefix.split("/")
            sets[-1]["validation"] = f"{pair}/validation/{name}"
            write(sets[-1]["validation"], held, **about)
    if not sets:
        raise SdrrlError("no sample is left to pack; look at the drop reasons of the stages before")
    together = ("tokenizer_sha256", "seq_length", "pairs", "method", "loss", "request")
    write_blend(folder, sets, {key: manifests[0][key] for key in together if key in manifests[0]})
    return merged_manifest(manifests)


def _of(
    rows: Iterable[TokenizedRow], part: Part, wanted: Callable[[TokenizedRow], bool]
) -> Iterator[TokenizedRow] | None:
    """The rows of a part that are wanted; None where there are none."""
    mine = (row for row in rows if (row["pair"], row["subset"]) == part and wanted(row))
    first = next(mine, None)
    return None if first is None else chain([first], mine)


def _entry(part: Part, manifest: dict[str, Any]) -> dict[str, Any]:
    counts = {key: manifest[key] for key in ("packs", "samples", "tokens", "manifest_sha256")}
    return {"prefix": part.prefix, "weight": manifest["packs"], "pair": part.pair, "subset": part.subset, **counts}
