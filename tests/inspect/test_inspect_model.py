# SPDX-License-Identifier: MIT
"""inspect_model: what it says of every layout, of folders, of broken things; and that nothing makes it crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoints import edit_json, make_checkpoint
from tests.support.engine_models import model
from tests.support.foreign_files import TILED, WRITERS, Key, i2_s_flat, random_rows, rewrite, write_gguf
from tests.support.tiny_checkpoints import maple, qwen3
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from tests.support.tiny_gguf import KEYS
from trit.base.errors import TritError, run_main
from trit.base.places import BUNDLED_MODEL
from trit.gguf.layouts import LAYOUTS
from trit.gguf.source import Source
from trit.inspect import gguf_file, host, sample
from trit.inspect.command import inspect, main


def as_json(capsys: pytest.CaptureFixture[str], path: Path, *flags: str) -> dict[str, Any]:
    """What is printed; what is refused is an error too, in the same words."""
    code = run_main(main, [str(path), "--json", "--no-speed", *flags])
    said = capsys.readouterr()
    found: dict[str, Any] = json.loads(said.out)
    refused = found["refused"] is not None
    assert refused == found["verdict"].startswith("refused: ")
    assert code == (2 if refused else 0) and bool(said.err) == refused
    if refused:
        error = TritError(found["refused"])
        assert said.err in (f"error: {error}\n", f"error: {path}: {error}\n") and str(path) in said.err
    return found


def test_bundled_model_as_file_and_as_folder(story_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = as_json(capsys, story_gguf), as_json(capsys, BUNDLED_MODEL)
    assert file["types"]["i2_s"]["tensors"] == 28 and file["scales"] == {"one per tensor": 28}
    assert file["dimensions"] == folder["dimensions"]
    assert file["dimensions"]["layers"] == 4 and file["dimensions"]["head_size"] == 64
    assert file["layers"] == folder["layers"] and len(file["layers"]) == 4
    assert sum(map(sum, (layer["counts"] for layer in file["layers"].values()))) == file["looked_at"] == 3_407_872
    # Written out: 4 layers x 4 heads x 64 x 2 (K and V) x 2 bytes x 1024 tokens; two bits a weight and the rest.
    assert file["memory"]["kv_cache"] == 4 * 4 * 64 * 2 * 2 * 1024 and file["memory"]["context"] == 1024
    embedding = Source.open(story_gguf).found["token_embd.weight"]
    norms = 4 * (3 * 256 + 768) + 256
    assert file["memory"]["packed"] == 3_407_872 // 4 + embedding.nbytes + 4 * norms
    assert folder["memory"]["packed"] == file["memory"]["packed"]
    assert file["verdict"] == "loads as it is" and file["head"] == f"{embedding.name}, the embedding (tied)"
    assert file["tokenizer"] == {"model": "gpt2", "pre": "gpt-2", "tokens": 2013, "chat_template": False}
    assert folder["verdict"] == "is to be converted to i2_s" and "bitnet-b1.58 in the engine" in folder["architecture"]
    assert file["order"]["published"] > 100 > file["order"]["arm"]


def test_lines_for_people(story_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, [str(story_gguf), "--layers", "--no-speed", "-c", "100"]) == 0
    said = capsys.readouterr().out
    for part in (
        "28 i2_s (0.9 MB)",
        "17 f32 (0.0 MB)",
        "-1: 33.7 / 34.1 / 34.3 %, 0: 31.7 / 31.9 / 32.9 %, +1: 33.4 / 33.9 / 34.1 % of 4 layers",
        "of all 3,407,872 weights)",
        "  layer 3     -1 ",
        "0.4 MB KV cache at 100 tokens",
        "gpt2, pre-tokenizer gpt-2, 2,013 tokens, without chat template",
        "verdict       loads as it is",
        "run_inference.py -m ",
    ):
        assert part in said, said


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout(layout: str, story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rewrite(story_gguf, tmp_path / "m.gguf", layout)
    found = as_json(capsys, path)
    silent = layout in ("i2_s_arm", "i2_s_rows4")
    assert found["types"]["i2_s" if silent else layout]["tensors"] == 28
    if LAYOUTS[layout].loads:
        assert found["verdict"] == "loads as it is"
    elif silent:
        assert found["verdict"].startswith("loads, but answers nonsense")
        assert found["command"].endswith(f"--outtype i2_s --i2-s-layout {layout.removeprefix('i2_s_')}")
    else:
        assert found["verdict"].startswith("is to be converted: ") and LAYOUTS[layout].writer in found["verdict"]
        assert f"--outtype {LAYOUTS[layout].outtype}" in found["command"]
    if layout in TILED:
        assert "--kernel-config" in found["problems"][0]
    else:
        assert found["scales"] == {"one per tensor": 28} and len(found["layers"]) == 4


@pytest.mark.parametrize("layout", ["i2_s", "tl1", "tl2"])
def test_samples_are_like_the_whole(
    layout: str,
    story_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = rewrite(story_gguf, tmp_path / "m.gguf", layout)
    whole = inspect(path, exact=True)
    monkeypatch.setattr(sample, "SAMPLE_WEIGHTS", 64 * 256)
    part = inspect(path)
    assert part.looked_at < whole.looked_at / 4 and part.scales == whole.scales
    for layer, shares in whole.layers.items():
        np.testing.assert_allclose(part.layers[layer].shares, shares.shares, atol=0.02)
    assert inspect(path, exact=True).layers == whole.layers
    assert run_main(main, [str(path), "--no-speed"]) == 0
    counted = f"a sample of {part.looked_at:,} of 3,407,872 weights ({part.looked_at / 34078.72:.2g} %), --exact takes"
    assert counted in capsys.readouterr().out


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_is_read_for_every_token_only_as_a_head(tied: bool, tmp_path: Path) -> None:
    matrix = ("blk.0.ffn_up.weight", (64, 256), 36, WRITERS["i2_s"][1](random_rows(64, 256), 0.5))
    tensors = [("token_embd.weight", (300, 256), 1, bytes(300 * 512)), matrix]
    if not tied:
        tensors.append(("output.weight", (300, 256), 0, bytes(300 * 1024)))
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    assert inspect(path).head == ("f16, the embedding (tied)" if tied else "f32, its own")
    assert gguf_file.bytes_per_token(path) == 64 * 256 // 4 + 300 * (512 if tied else 1024)


def test_blocks_that_lie_across_rows_are_not_sampled_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(64, 192)
    tensor = ("blk.0.ffn_down.weight", (64, 192), 36, i2_s_flat(rows, 0.5))
    path = write_gguf(tmp_path / "m.gguf", KEYS, [tensor])
    monkeypatch.setattr(sample, "SAMPLE_WEIGHTS", 192)
    flat = [code for row in rows for code in row]
    assert inspect(path).layers["0"].counts == [flat.count(0), flat.count(1), flat.count(2), 0]


def test_scales_of_groups_and_rows_and_plus_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = random_rows(4, 256)
    groups = b"".join(WRITERS["pq2_0"][1]([row[:128]], 0.5) + WRITERS["pq2_0"][1]([[3] * 128], 0.25) for row in rows)
    by_row = b"".join(WRITERS["iq2_bn"][1]([row], 0.5 + i) for i, row in enumerate(rows))
    tensors = [("blk.0.a.weight", (4, 256), 142, groups), ("blk.1.a.weight", (4, 256), 135, by_row)]
    found = as_json(capsys, write_gguf(tmp_path / "m.gguf", KEYS, tensors))
    assert found["scales"] == {"one per group of 128": 1, "one per row": 1}
    assert found["layers"]["0"]["counts"][3] == 512


def test_refusals(story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = [("blk.0.a.weight", (4, 256), 150, bytes(2048))]
    rotated: Key = ("prism.hadamard.version", 4, None, 1)
    pq2 = [("blk.0.a.weight", (4, 256), 142, WRITERS["pq2_0"][1](random_rows(4, 256), 0.5))]
    q2 = [("blk.0.a.weight", (4, 256), 42, WRITERS["q2_0"][1](random_rows(4, 256), 0.5))]
    damaged = [("blk.0.a.weight", (4, 256), 36, b"\xff" * 256 + np.ones(8, "<f4").tobytes())]
    for keys, tensors, verdict in (
        (KEYS, unknown, "refused: blk.0.a.weight has type 150 and 2048 bytes for 4x256 weights"),
        ([*KEYS, rotated], pq2, "refused: its weights are rotated"),
        (
            [("general.architecture", 8, None, "no-such")],
            q2,
            "refused: general.architecture is 'no-such', for which the engine has no graph",
        ),
        ([("general.architecture", 8, None, "bitnet-25")], q2, "refused: bitnet-25.context_length is missing"),
        (KEYS, q2, "loads as it is, if its tensors are those of stablelm, which are not compared"),
        (KEYS, damaged, "refused: damaged, it holds bytes that mean nothing"),
        (KEYS, [], "refused: it has no weights: only a vocabulary"),
        (KEYS, [("blk.0.a.weight", (4, 256), 1, bytes(2048))], "loads as it is, if its tensors"),
    ):
        found = as_json(capsys, write_gguf(tmp_path / "m.gguf", keys, tensors))
        assert found["verdict"].startswith(verdict), found["verdict"]
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    for path, verdict in (
        (BUNDLED_MODEL / "model.safetensors", "refused: give the whole folder"),
        (tmp_path / "pytorch_model.bin", "refused: give the whole folder"),
        (BUNDLED_MODEL / "config.json", "refused: neither a GGUF file nor"),
        (tmp_path, "refused: "),
    ):
        assert as_json(capsys, path)["verdict"].startswith(verdict)
    assert run_main(main, [str(tmp_path / "missing.gguf")]) == 2
    assert "missing.gguf: is not there" in capsys.readouterr().err
    assert run_main(main, [str(story_gguf), "-c", "0"]) == 2


def test_metadata_of_the_wrong_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every known key as text, as a list, negative, huge; control characters in names do not reach the terminal."""
    names = (*gguf_file.DIMENSIONS, "tokens")
    for kind, element, value in (
        (8, None, "x\x1b[2J"),
        (9, 5, [-1, 3]),
        (11, None, -(1 << 62)),
        (12, None, float("nan")),
    ):
        keys: list[Key] = [*KEYS, *((f"stablelm.{name}", kind, element, value) for name in names)]
        keys += [
            (key, kind, element, value) for key in ("general.name", "tokenizer.ggml.model", "tokenizer.ggml.tokens")
        ]
        path = write_gguf(tmp_path / "m.gguf", keys, [("\x1b]0;title\x07", (4, 32), 0, bytes(512))])
        code = 2 if as_json(capsys, path)["refused"] else 0
        assert run_main(main, [str(path), "--no-speed"]) == code
        assert "\x1b" not in "".join(capsys.readouterr())


def test_random_damage_is_described(tmp_path: Path) -> None:
    """A small file, hurt in its header, its table and its weights."""
    tensors = [("blk.0.attn_norm.weight", (256,), 0, np.ones(256, "<f4").tobytes())]
    for i, (layout, name) in enumerate(
        (("i2_s", "attn_q"), ("q2_0", "attn_k"), ("ptq1_0", "attn_v"), ("iq1_bn", "ffn_up"))
    ):
        kind, writer = WRITERS[layout]
        tensors.append((f"blk.0.{name}.weight", (8, 256), kind, writer(random_rows(8, 256, i), 0.5)))
    raw = write_gguf(tmp_path / "m.gguf", KEYS, tensors).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "d.gguf"
    verdicts = set()
    for i in range(400):
        damaged = bytearray(raw)
        for place in rng.integers(0, len(raw) if i % 2 else 700, rng.integers(1, 8)):
            damaged[place] = rng.choice([0, 255, rng.integers(0, 256)])
        path.write_bytes(damaged[: len(raw) if i % 5 else int(rng.integers(0, len(raw)))])
        verdicts.add(inspect(path).verdict.partition(":")[0])
    assert {"refused", "is to be converted"} <= verdicts


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("pristine") / "m", layers=1, hidden=128, ffn=256).directory


def test_folders_of_other_families(tmp_path: Path) -> None:
    """Scales of groups, names without "model." and norms of inputs, columns that are no blocks of i2_s."""
    qwen3.make(tmp_path / "bonsai", "Ternary-Bonsai-1.7B", GROUPED)
    bonsai = inspect(tmp_path / "bonsai")
    assert bonsai.verdict == "is to be converted to q2_0" and bonsai.scales.keys() == {
        "one per group of 128 (ternary floats in groups of 128)"
    }
    qwen3.make(tmp_path / "embedding", "bitnet-embedding-0.6b", "master-bf16")
    embedding = inspect(tmp_path / "embedding")
    assert embedding.verdict == "is to be converted to i2_s" and embedding.scales.keys() == {"one per tensor (master)"}
    make_checkpoint(tmp_path / "odd", layers=1, hidden=192, ffn=256)
    odd = inspect(tmp_path / "odd")
    assert odd.verdict == "is to be converted to tl1" and odd.outtypes == ["tl1", "q2_0", "f16", "f32"]
    maple.make(tmp_path / "maple", "maple-preview", maple.ROWS)
    mixed = inspect(tmp_path / "maple")
    assert mixed.verdict == "is to be converted to tq2_0" and "i2_s" not in mixed.outtypes


def test_layers_of_a_folder_are_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "deep", layers=8, hidden=128, ffn=256).directory
    found = as_json(capsys, folder)
    assert 0 < found["looked_at"] * 2 == found["ternary"] and len(found["layers"]) == 4
    assert run_main(main, [str(folder), "--no-speed"]) == 0
    counted = (
        f"4 layers (min / median / max of a sample of {found['looked_at']:,} of {found['ternary']:,} weights (50 %)"
    )
    assert counted in capsys.readouterr().out
    assert as_json(capsys, folder, "--exact")["looked_at"] == found["ternary"]


def test_folders_that_are_not_right(pristine: Path, tmp_path: Path) -> None:
    whole = inspect(pristine)
    assert whole.verdict == "is to be converted to i2_s"
    assert whole.command and whole.command.endswith("--outtype i2_s")

    def verdict(**changes: Any) -> str:
        folder = Path(shutil.copytree(pristine, tmp_path / "m", dirs_exist_ok=True))
        edit_json(folder / "config.json", **changes)
        return inspect(folder).verdict

    for changes, part in (
        ({"architectures": ["GPT2LMHeadModel"]}, "is not supported"),
        ({"architectures": None}, "missing is not supported"),
        ({"num_hidden_layers": 2}, "has no layer 1 (model.layers.1.*), but num_hidden_layers is 2 in config.json"),
        ({"hidden_size": "x"}, "hidden_size is 'x'"),
        ({"vocab_size": 7}, "config.json asks for"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"quantization_config": None}, "is not ternary"),
    ):
        found = verdict(**changes)
        assert found.startswith("refused: ") and part in found, found
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        folder = Path(shutil.copytree(pristine, tmp_path / name))
        raw = (folder / name).read_bytes()
        for content in (b"", raw[: len(raw) // 2], b"[]", b"\xff" * 100):
            (folder / name).write_bytes(content)
            assert inspect(folder).verdict.startswith("refused: ")
        (folder / name).unlink()
        assert inspect(folder).verdict.startswith("refused: ")


def test_a_folder_has_the_notes_of_the_converter(
    pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "m"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_eos_token": True}))
    assert main([str(folder), "--no-speed"]) == 0
    (note,) = (note for note in inspect(folder).tokenizer["notes"] if "behind them" in note)
    assert note in capsys.readouterr().out


def test_read_rate_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trit.engine.roofline import Limit, Read, Roofline

    calls: list[int] = []

    def measured(threads: list[int], **_: Any) -> Roofline:
        calls.append(1)
        limit = Limit("avx2", threads[0], [1.0], [Read("huge", 0, [9.0, 10.0]), Read("plain", 0, [7.0])])
        return Roofline("gcc", 1, {"avx2": ["2_bits"]}, [limit])

    program = tmp_path / "trit-roofline"
    monkeypatch.setattr(host, "measure", measured)
    monkeypatch.setattr(host, "engine_program", lambda name: program)
    monkeypatch.setattr(host, "CACHE", tmp_path / "cache" / "read-rate.json")
    monkeypatch.setattr(host, "last_level_cache_bytes", lambda: None)
    assert host.read_rate() == {"reason": "not measured: the engine is not built"}
    program.touch()
    first, second = host.read_rate(), host.read_rate()
    assert (first["gbs"], first["kept"], second["kept"], len(calls)) == (10.0, False, True, 1)
    assert run_main(main, [str(story_gguf)]) == 0
    size = Source.open(story_gguf).found["token_embd.weight"].nbytes + 3_407_872 // 4 + 4 * (4 * (3 * 256 + 768) + 256)
    assert f"bound {10e9 / size:.1f} tokens/s" in capsys.readouterr().out
    for broken in ("", "[]", "{}", '{"key": 1}'):
        host.CACHE.write_text(broken)
        assert host.read_rate()["kept"] is False
    assert host.read_rate(again=True)["kept"] is False and host.read_rate()["kept"] is True
    monkeypatch.setattr(host, "last_level_cache_bytes", lambda: 1 << 30)
    assert "fit this machine's caches" in host.speed_bound(size, host.read_rate())["reason"]


def test_a_hybrid_in_a_rotated_basis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The basis has a line of its own; only the layer that attends keeps keys and values."""
    path = write_gguf(tmp_path / "m.gguf", *model("qwen35"))
    found = as_json(capsys, path)
    assert found["basis"] == "4 matrices are rotated by blocks of 32 inputs, with signs; the engine follows"
    assert found["memory"]["kv_cache"] == 2 * 2 * 32 * found["memory"]["context"]
    assert found["verdict"].startswith("loads as it is")
