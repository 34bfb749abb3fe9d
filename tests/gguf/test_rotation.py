# SPDX-License-Identifier: MIT
"""Keys of a rotated basis: what contradicts itself or is not known is refused by its name.

That the engine says the same is in tests/fuzz/test_agreement.py, what it computes in tests/engine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine_models import ARRAY, EMBEDDING, FORWARD, I32, STRING, model
from tests.support.foreign_files import WRITERS, Key, random_rows, write_gguf
from trit.base.errors import UserError, run_main
from trit.convert.command import main as convert_main
from trit.gguf.header import read_raw_header
from trit.gguf.loadable import check_loadable
from trit.gguf.rotation import wrong_rotation
from trit.gguf.validate import LOOKED_AT

PREFIX = "prism.hadamard."


def said(tmp_path: Path, *changes: Key, without: str = "") -> str | None:
    keys, tensors = model("qwen35")
    gone = {key[0] for key in changes} | {f"{PREFIX}{without}"}
    path = write_gguf(tmp_path / "m.gguf", [*(key for key in keys if key[0] not in gone), *changes], tensors)
    return wrong_rotation(read_raw_header(path, LOOKED_AT))


def changed(name: str, value: object) -> Key:
    """A key of the tiny model with another value of the same type."""
    kind, element = next((key[1], key[2]) for key in model("qwen35")[0] if key[0] == f"{PREFIX}{name}")
    return f"{PREFIX}{name}", kind, element, value


def test_the_whole_model_is_sound(tmp_path: Path) -> None:
    assert said(tmp_path) is None
    identity = changed("sign_mode", "identity")
    assert said(tmp_path, identity, without="sign_values") is None


@pytest.mark.parametrize(
    "name",
    ["version", "block_size", "transform", "axis", "sign_mode", "sign_widths", "sign_values", "weight_names",
     "inverse_weight_names", "gdn_v_grouped"],
)  # fmt: skip
def test_a_missing_key_is_named(name: str, tmp_path: Path) -> None:
    assert said(tmp_path, without=name) == f"{PREFIX}{name} is missing, and its weights are rotated"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed("version", 2), "version is 2, expected 1"),
        (changed("block_size", 24), "block_size is 24, expected a power of two"),
        (changed("block_size", 64), f"sign_widths holds {FORWARD}, no multiple of {PREFIX}block_size 64"),
        (changed("transform", "dct"), "transform is 'dct', expected"),
        (changed("axis", "rows"), "axis is 'rows', expected"),
        (changed("sign_mode", "x"), "sign_mode is 'x', expected"),
        (changed("sign_widths", [EMBEDDING, EMBEDDING]), "sign_widths has 2 widths"),
        (changed("sign_widths", [EMBEDDING]), f"sign_values has {EMBEDDING + FORWARD} numbers, expected {EMBEDDING}"),
        (changed("sign_values", [1] * (EMBEDDING + FORWARD - 1) + [3]), "sign_values holds 3, expected 1 and -1"),
        (changed("weight_names", ["blk.1.ffn_norm.weight"]), "weight_names has 'blk.1.ffn_norm.weight', which"),
        (changed("weight_names", ["blk.9.ffn_up.weight"]), "blk.9.ffn_up.weight, which is not in the file"),
        (changed("weight_names", ["token_embd.weight"]), "which is a table of rows"),
        (changed("inverse_weight_names", ["output.weight"]), "inverse_weight_names has 'output.weight'"),
        ((f"{PREFIX}weight_names", STRING, None, "x"), "weight_names has a type"),
        ((f"{PREFIX}groups", ARRAY, I32, [1]), "groups is a key of a rotation that is not known here"),
        (("general.architecture", STRING, None, "llama"), "known of qwen35, not of 'llama'"),
        (("qwen35.ssm.inner_size", 4, None, 48), "blk.0.ssm_out.weight has 64 inputs, expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(change: Key, reason: str, tmp_path: Path) -> None:
    assert reason in str(said(tmp_path, change))


def test_the_engine_is_not_started_with_it(tmp_path: Path) -> None:
    keys, tensors = model("qwen35")
    path = write_gguf(tmp_path / "m.gguf", [key for key in keys if key[0] != f"{PREFIX}axis"], tensors)
    with pytest.raises(UserError, match=r"m\.gguf: prism\.hadamard\.axis is missing"):
        check_loadable(path)


@pytest.mark.parametrize("layout", ["pq2_0", "ptq1_0"])
def test_layouts_of_rotated_releases_without_keys(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """llama-quantize has made such files of Bonsai 2, which answer nonsense; those of Bonsai 1 are right."""
    keys, tensors = model("qwen35")
    keys = [("qwen35.feed_forward_length", 4, None, 128) if key[0].endswith("feed_forward_length") else key
            for key in keys if not key[0].startswith(PREFIX)]  # fmt: skip
    number, writer = WRITERS[layout]
    raw = writer(random_rows(EMBEDDING, 128), 0.5)
    ffn = bytes(4 * 128 * EMBEDDING)
    rest = [row for row in tensors if "ffn_" not in row[0]]
    for layer in (0, 1):
        rest += [(f"blk.{layer}.ffn_{name}.weight", (128, EMBEDDING), 0, ffn) for name in ("gate", "up")]
        rest.append((f"blk.{layer}.ffn_down.weight", (EMBEDDING, 128), number, raw))
    path = write_gguf(tmp_path / "m.gguf", keys, rest)
    arguments = [str(path), "--outtype", "q2_0", "--outfile", str(tmp_path / "out.gguf")]
    assert run_main(convert_main, arguments) == 2
    assert "pass --no-rotation if the model is another" in capsys.readouterr().err
    assert run_main(convert_main, [*arguments, "--no-rotation"]) == 0
    rotated = write_gguf(tmp_path / "r.gguf", model("qwen35")[0], tensors)
    assert run_main(convert_main, [str(rotated), "--outtype", "q2_0", "--no-rotation"]) == 2
    assert "so leave --no-rotation away" in capsys.readouterr().err
