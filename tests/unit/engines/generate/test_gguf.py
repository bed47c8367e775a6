from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdrrl_nemo.common.errors import SdrrlError
from sdrrl_nemo.model import gguf as importer
from tools.import_gguf import main


def test_logits_equal_the_gguf_bit_for_bit(tiny_gguf: Path, tiny_model: Path) -> None:
    direct = AutoModelForCausalLM.from_pretrained(str(tiny_gguf.parent), gguf_file=tiny_gguf.name, dtype=torch.float32)
    folder = AutoModelForCausalLM.from_pretrained(str(tiny_model), dtype=torch.float32)
    ids = torch.arange(3, 67).view(2, 32)
    with torch.no_grad():
        assert torch.equal(direct.eval()(ids).logits, folder.eval()(ids).logits)
    assert folder.config.tie_word_embeddings
    assert folder.config.rms_norm_eps == 1e-5


def test_tokenizer_follows_the_file(tiny_model: Path) -> None:
    tok = AutoTokenizer.from_pretrained(str(tiny_model))
    assert (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id) == (1, 2, 2)
    # Digits split off first, so the blank line before a list stays one token; nothing is put before the text.
    assert tok.tokenize("b\n\n12 a") == ["b", "ĊĊ", "1", "2", "Ġa"]
    assert tok("<|im_end|>").input_ids == [2]
    for text in ("Água,  2024\n\n— ok", "x<|im_start|>y"):
        assert tok.decode(tok(text).input_ids) == text
    chat = tok.apply_chat_template([{"role": "user", "content": "b"}], add_generation_prompt=True, tokenize=False)
    assert chat == "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"


def test_second_import_does_nothing(tiny_gguf: Path, tiny_model: Path) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in tiny_model.iterdir()}
    assert importer.import_gguf(tiny_gguf, tiny_model) is False
    assert before == {f.name: f.stat().st_mtime_ns for f in tiny_model.iterdir()}


def test_failed_import_leaves_nothing_under_the_name(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importer, "_verify", fail)
        with pytest.raises(KeyboardInterrupt):
            importer.import_gguf(tiny_gguf, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert importer.import_gguf(tiny_gguf, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_folders_that_are_no_import_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(SdrrlError, match=r"holds no complete import"):
        importer.import_gguf(tiny_gguf, tmp_path / "other")
    mark = {"import_version": importer.IMPORT_VERSION, "source_sha256": "0", "files": {}}
    (tmp_path / "other" / importer.MARK).write_text(json.dumps(mark))
    with pytest.raises(SdrrlError, match="another file"):
        importer.import_gguf(tiny_gguf, tmp_path / "other")


def test_cut_weights_are_seen(tiny_gguf: Path, tmp_path: Path) -> None:
    importer.import_gguf(tiny_gguf, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(SdrrlError, match=r"model\.safetensors.*cut"):
        importer.import_gguf(tiny_gguf, tmp_path / "out")


def test_what_would_be_left_out_is_refused(tmp_path: Path, write_gguf: Callable[..., Path]) -> None:
    """A softcap, a scaling of the rotary positions, a bias: transformers' reader passes over them."""
    for name in ("llama.final_logit_softcapping", "llama.rope.scaling.factor", "llama.attention.key_length"):
        with pytest.raises(SdrrlError, match=rf"'{name}' = 30\.0 is not read here"):
            importer.import_gguf(write_gguf(tmp_path / "field.gguf", more={name: 30.0}), tmp_path / "out")
    with pytest.raises(SdrrlError, match=r"the file has 21 tensors, a llama of its fields 20"):
        importer.import_gguf(write_gguf(tmp_path / "bias.gguf", extra="output.bias"), tmp_path / "out")
    off = write_gguf(tmp_path / "off.gguf", more={"llama.logit_scale": 0.0})
    importer.check_fields(importer.read_fields(off), off)


def test_bad_sources_are_one_sentence(tmp_path: Path, write_gguf: Callable[..., Path]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    cases = {
        "no such GGUF file": tmp_path / "absent.gguf",
        "not a readable GGUF": broken,
        "pre-tokenizer 'smolm' is not supported; did you mean 'smollm'": write_gguf(tmp_path / "p.gguf", pre="smolm"),
        "architecture 'falcon' is not supported": write_gguf(tmp_path / "f.gguf", architecture="falcon"),
    }
    for message, path in cases.items():
        with pytest.raises(SdrrlError, match=message):
            importer.import_gguf(path, tmp_path / "out")
    with pytest.raises(SdrrlError, match="'no-such-package' is not installed"):
        main(["--package", "no-such-package", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
