"""Write a tiny random wmt22-comet-da; run by the Python of COMET's environment (test_scorers_comet.py).

python tests/unit/eval/tiny_comet_da.py FOLDER -> FOLDER/{encoder,da}, FOLDER/segments.json: one a case of
tests/data/scorers/rouge.json (source: the English sentence of the same number), and FOLDER/expected.json with the
scores that COMET's own ``predict`` gives, one segment a batch.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def main() -> None:
    import sentencepiece
    import torch

    spec = importlib.util.spec_from_file_location("tiny_comet", ROOT / "tests/unit/engines/quality/tiny_comet.py")
    assert spec is not None and spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    cases = json.loads((ROOT / "tests/data/scorers/rouge.json").read_text(encoding="utf-8"))["cases"]
    english = [c["reference"] for c in cases if c["lang"] == "eng"]
    tiny.SEGMENTS = [
        {"src": english[i % len(english)], "mt": c["prediction"], "ref": c["reference"]} for i, c in enumerate(cases)
    ]
    train = sentencepiece.SentencePieceTrainer.train
    # 18 languages have more characters than the few pieces of that file's own segments
    sentencepiece.SentencePieceTrainer.train = lambda **options: train(**{**options, "vocab_size": 1500})
    folder = Path(sys.argv[1])
    torch.manual_seed(4)
    tiny.encoder(folder / "encoder")
    expected = tiny.model(folder / "da", "regression_metric", folder / "encoder")
    (folder / "segments.json").write_text(json.dumps(tiny.SEGMENTS), encoding="utf-8")
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main()
