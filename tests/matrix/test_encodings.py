# SPDX-License-Identifier: MIT
"""The engine's decoder of every encoding, compiled by itself, against bytes that the tests' own writers make."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.foreign_files import WRITERS, random_rows
from trit.gguf.encoding_table import TABLE, TERNARY

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.compiles


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encodings") / "encodings_driver"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'src'}", f"-I{ROOT / 'include'}"]
    sources = [ROOT / "src" / "matrix" / "encodings.cpp", ROOT / "tests" / "support" / "encodings_driver.cpp"]
    result = subprocess.run(["c++", *flags, *sources, "-o", out], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.parametrize("name", TERNARY)
def test_the_engine_reads_what_the_writers_write(name: str, program: Path) -> None:
    row, (n, k) = TABLE[name], (3, 768)
    rows = random_rows(n, k)
    result = subprocess.run([program, name, str(n), str(k)], input=WRITERS[name][1](rows, 0.375), capture_output=True)
    told, scale, codes = result.stdout.decode().split("\n")[:3]
    wanted = (row.block, row.block_bytes, -1 if row.scale_at is None else row.scale_at, row.tail_bytes, row.holds_two)
    assert told == " ".join(str(int(value)) for value in wanted)
    assert scale == ("0.375" if row.scale_at is None else "0x3600")
    assert codes == "".join(str(code) for line in rows for code in line)
