# SPDX-License-Identifier: MIT
"""CONTRIBUTING's recipe for an encoding, followed in a copy: five places, and each of them is missed by its name.

The dummy is x2_0: q2_0's sizes, the four weights of a byte the other way round, no +2, a number that no other type has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.compiles

# What the dummy needs of the tree.
COPIED = ("trit", "src/matrix", "include", "docs/formats.md", "3rdparty/patches", "tests/__init__.py", "tests/support")
COPIED += ("tests/gguf", "tests/matrix/test_encodings.py", "pyproject.toml", "CONTRIBUTING.md")
COPIED += ("src/kernels/panel_fields.h",)  # encodings.h includes it
CONSISTENT = "tests/gguf/test_encoding_places.py"

# Place -> (what stands there, what is put in front of it), for every change.
RECIPE: dict[str, list[tuple[str, str]]] = {
    "trit/gguf/encoding_table.py": [
        (
            '        EncodingRow("f16",',
            '        EncodingRow("x2_0", ggml_type=50, file_type=150, block=64, block_bytes=18, scale_at=0),\n',
        )
    ],
    "trit/gguf/codecs.py": [
        (
            "CODECS: dict[str, Codec] = {\n",
            '''def pack_x2_0(ternary: Ternary, scale: Scale) -> Bytes:
    """Blocks of 64 weights: the scale as float16, then bytes of four neighbouring weights, highest bits first."""
    blocks = np.empty((ternary.size // 64, 18), dtype=np.uint8)
    blocks[:, :2] = spread_scale(scale, *ternary.shape, 64).astype("<f2").view(np.uint8).reshape(-1, 2)
    codes = (ternary.reshape(-1, 16, 4) + np.int8(1)).view(np.uint8)
    blocks[:, 2:] = codes[..., 0] << 6 | codes[..., 1] << 4 | codes[..., 2] << 2 | codes[..., 3]
    return blocks.reshape(-1)


def _x2_0_values(blocks: Bytes) -> Ternary:
    return np.ascontiguousarray(fields(blocks[:, 2:], (6, 4, 2, 0)).transpose(0, 2, 1)).reshape(len(blocks), 64)


''',
        ),
        ('    "tl1": Codec(', '    "x2_0": Codec(pack_x2_0, _scaled_blocks("x2_0", _x2_0_values)),\n'),
    ],
    "src/matrix/encodings.cpp": [
        (
            "constexpr Encoding kEncodings[] = {\n",
            """/// x2_0: the scale, then 16 bytes with 4 neighbouring weights each, highest bits first.
void unpack_x2_0(int64_t k, const uint8_t* row, uint8_t* codes) {
    for (int64_t block = 0; block < k / 64; ++block, row += 18) {
        for (int p = 0; p < 16; ++p, codes += 4) {
            for (int i = 0; i < 4; ++i) {
                codes[i] = row[2 + p] >> (6 - 2 * i) & 3;
            }
        }
    }
}

""",
        ),
        ('    {"q2_0", 64,', '    {"x2_0", 64, 18, 0, 0, false, unpack_x2_0},\n'),
    ],
    "docs/formats.md": [
        ("| `q2_0` | 42 |", "| `x2_0` | 50 | 64 | 18 | 2.25 | one F16 per block | 64 |\n"),
        (
            "- `q2_0`, per block of 64",
            "- `x2_0`, as `q2_0`, highest bits of a byte first; 3 is not valid.\n",
        ),
    ],
    "tests/support/foreign_files.py": [
        (
            "# Layout -> (tensor type number, writer).\n",
            """def x2_0(rows: Rows, scale: float) -> bytes:
    out = bytearray()
    for c in rows:
        for b in range(0, len(c), 64):
            out += f16(scale)
            for p in range(b, b + 64, 4):
                out.append(c[p] << 6 | c[p + 1] << 4 | c[p + 2] << 2 | c[p + 3])
    return bytes(out)


""",
        ),
        ('    "q2_0_g128": (42,', '    "x2_0": (50, x2_0),\n'),
        ('    ("pq2_0", 1, 128,', '    ("x2_0", 1, 64, HALF + "15" + "55" * 14 + "56", {(0, 0): -1, (0, 63): 1}),\n'),
    ],
}

# Nothing of what follows was told of the dummy but by the five places.
EVERYWHERE = """
from pathlib import Path
import numpy as np
from tests.support.foreign_files import WRITERS, codes, random_rows, write_gguf
from tests.support.tiny_gguf import KEYS
from trit.base.errors import run_main
from trit.convert.command import _parser, main
from trit.convert.from_random import OUTTYPES, matrix_pieces
from trit.gguf.encodings import ENCODINGS, check_fits
from trit.gguf.header import read_raw_header
from trit.gguf.identify import identify
from trit.gguf.loadable import check_loadable
from trit.gguf.types import GGMLQuantizationType
from trit.hub.choice import encoding_in_name, ready_models
from trit.measure.variants import parse_variant
from trit.models.registry import registry
from trit.setup.options import parse_options
from trit.tune.shapes import of_model

assert _parser().parse_args(["m", "--outtype", "x2_0"]).outtype == parse_options(["-q", "x2_0"]).quant_type == "x2_0"
assert encoding_in_name("Model-X2_0.gguf") == "x2_0" and len(ready_models(["a-x2_0.gguf", "a-q4_0.gguf"], "i2_s")) == 1
assert parse_variant("x2_0:no-repack").kernels == "llama.cpp's" and GGMLQuantizationType["X2_0"] == 50
outputs = [registry().outputs(registry().find(name)) for name in ("BitNet-b1.58-2B-4T", "Ternary-Bonsai-8B-unpacked")]
assert all("x2_0" in names for names in outputs) and list(registry().families.values())[0].outputs == outputs[0]
row = ENCODINGS["x2_0"]
for piece in matrix_pieces(np.random.default_rng(0), 8, 128, OUTTYPES["x2_0"], block_scales=True):
    assert set(np.unique(row.unpack(piece.reshape(-1), 8, 128, "w")[0])) == {-1, 0, 1}

rows = random_rows(64, 256)
raw = WRITERS["i2_s"][1](rows, 0.5)
first = write_gguf(Path("first.gguf"), KEYS, [("blk.0.ffn_up.weight", (64, 256), 36, raw)])
for source, name in (("first", "x2_0"), ("second", "i2_s")):
    target = {"first": "second", "second": "third"}[source]
    assert run_main(main, [f"{source}.gguf", "--outtype", name, "--outfile", f"{target}.gguf"]) == 0
    (item,) = identify(read_raw_header(Path(f"{target}.gguf")))
    assert item.name == name and item.loads
    data = Path(f"{target}.gguf").read_bytes()[item.tensor.offset :][: item.nbytes]
    assert data == WRITERS[name][1](rows, 0.5), name
check_loadable(Path("second.gguf"))
assert of_model(Path("second.gguf")) == {(64, 256): 1}
"""


def copy_tree(target: Path) -> Path:
    for name in COPIED:
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    return target


def follow(tree: Path, place: str) -> None:
    """One place of the recipe."""
    text = (tree / place).read_text(encoding="utf-8")
    for anchor, insertion in RECIPE[place]:
        assert text.count(anchor) == 1, f"{place}: {anchor!r} is there {text.count(anchor)} times"
        text = text.replace(anchor, insertion + anchor)
    (tree / place).write_text(text, encoding="utf-8")


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-B", *arguments], cwd=tree, capture_output=True, text=True)


def run_tests(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(
        tree, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-o", "markers=compiles", *arguments
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the dummy in all five places."""
    copy = copy_tree(tmp_path_factory.mktemp("recipe"))
    for place in RECIPE:
        follow(copy, place)
    return copy


def test_contributing_names_the_five_places() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add an encoding")[2]
    steps = section.partition("\n## ")[0]
    assert len(RECIPE) == 5
    assert [place for place in RECIPE if f"`{place}`" not in steps] == []


def test_five_places_are_enough(tree: Path) -> None:
    done = python(tree, "-c", EVERYWHERE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_walk_the_table(tree: Path) -> None:
    """Bytes by hand, the writers, round trips, sizes, refusals and the engine's decoder, none of them told of it."""
    walking = ("tests/gguf/test_foreign.py", "tests/gguf/test_formats.py", "tests/matrix")
    done = run_tests(tree, "-vv", CONSISTENT, *walking, "-k", "x2_0 or there or agree")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {line.partition("::")[2].partition("[")[0] for line in done.stdout.splitlines() if "x2_0" in line}
    assert names == {
        "test_bytes_on_paper",
        "test_scalar_writers_round_trip",
        "test_number_and_size_decide",
        "test_round_trip",
        "test_bytes_of_every_encoding_are_read_back",
        "test_the_engine_reads_what_the_writers_write",
    }


@pytest.mark.parametrize("place", RECIPE)
def test_a_place_that_is_left_out_is_named(place: str, tree: Path) -> None:
    whole = (tree / place).read_text(encoding="utf-8")
    shutil.copy(ROOT / place, tree / place)
    try:
        done = run_tests(tree, CONSISTENT)
    finally:
        (tree / place).write_text(whole, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "E   "))]
    assert sum(line.startswith("FAILED") for line in failed) == 1, done.stdout
    assert any(f"test_every_encoding_is_there[{place}]" in line for line in failed), done.stdout
    assert any(f"AssertionError: {place}: " in line and "x2_0" in line for line in failed), done.stdout
