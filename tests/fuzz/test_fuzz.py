# SPDX-License-Identifier: MIT
"""A short slice of the readers' fuzzing, always the same; the full run is ``python -m tests.fuzz.readers``."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

if os.name != "posix":
    pytest.skip("needs resource limits and alarms", allow_module_level=True)

from tests.fuzz import readers
from tests.fuzz.mutate import gguf_fields, mutate_gguf, mutate_json, mutate_safetensors
from trit.base.errors import UserError
from trit.base.places import ROOT
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header
from trit.gguf.identify import identify
from trit.gguf.types import read_header
from trit.models.checkpoint import Checkpoint, readable

PLAIN = readers.SEEDS / "plain.gguf"
PACKED = readers.SEEDS / "packed"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("reader", "count"), [("gguf", 400), ("checkpoint", 40), ("hub", 40)])
def test_slice(reader: str, count: int, seed: int) -> None:
    """In a process of its own: its limits must not stay on this one."""
    flags = ["--reader", reader, "--count", str(count), "--seed", str(seed)]
    command = [sys.executable, "-m", "tests.fuzz.readers", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_seeds_are_good(tmp_path: Path) -> None:
    rotated = readers.SEEDS / "rotated.gguf"
    for path in set(readers.SEEDS.glob("*.gguf")) - {rotated}:
        assert len(read_header(path).tensors) == 2 + len(ENCODINGS)
    assert [item.name for item in identify(read_raw_header(rotated))] == ["pq2_0", "ptq1_0"]
    whole = readers.SEEDS / "whole"
    assert convert(whole, tmp_path / "whole.gguf", Options(ENCODINGS["f16"], None), progress=False).kinds
    for folder in (PACKED, readers.SEEDS / "floats"):
        assert Checkpoint.open(folder).tensors
        with pytest.raises(UserError, match="tokenizer"):
            convert(folder, folder / "out.gguf", Options(ENCODINGS["f16"], None), progress=False)


def test_mutations_reach_every_part() -> None:
    """Every field of the header is changed by some input, and most inputs still say what they are."""
    data = PLAIN.read_bytes()
    mutants = [mutate_gguf(data, Random(i)) for i in range(3000)]
    untouched = [
        field
        for field in gguf_fields(data)
        if all(
            mutant[field.offset : field.offset + field.size] == data[field.offset : field.offset + field.size]
            for mutant in mutants
        )
    ]
    assert not untouched
    assert sum(mutant[:4] == b"GGUF" for mutant in mutants) > 2500
    header = (PACKED / "model.safetensors").read_bytes()
    assert len({mutate_safetensors(header, Random(i)) for i in range(200)}) > 150
    assert len({mutate_json(b'{"a": 1, "b": [2, {"c": "d"}]}', Random(i)) for i in range(200)}) > 100


def test_a_crash_would_be_noticed(tmp_path: Path) -> None:
    def crash(folder: Path) -> None:
        raise IndexError("no such thing")

    make = readers.make_gguf
    assert "IndexError: no such thing" in (readers.run_one(readers.Reader(make, crash), Random(0), tmp_path) or "")
    # A hang, with a time limit that a test can wait for.
    code = "from tests.fuzz import readers; from random import Random; from pathlib import Path; import signal, sys\n"
    code += "readers.SECONDS = 0.2; signal.signal(signal.SIGPROF, readers._time_is_up)\n"
    code += "def hang(folder):\n    while True: pass\n"
    code += "print(readers.run_one(readers.Reader(readers.make_gguf, hang), Random(0), Path(sys.argv[1])))\n"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert "TooSlow" in done.stdout, done.stderr


def checkpoint(tmp_path: Path, **changes: object) -> Path:
    folder = Path(shutil.copytree(PACKED, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("text", ['{"a":' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "9" * 5000 + "}"])
def test_json_that_python_cannot_hold(text: str, tmp_path: Path) -> None:
    """Found by fuzzing: endless nesting and endless digits."""
    folder = checkpoint(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json: (cannot be read as JSON|a is a number of 5,000 digits)"):
        Checkpoint.open(folder)


def test_more_layers_than_tensors(tmp_path: Path) -> None:
    """Found by fuzzing: the list of wanted tensors grew until memory ran out."""
    folder = checkpoint(tmp_path, num_hidden_layers=2**31)
    with pytest.raises(
        UserError, match=r"num_hidden_layers is 2147483648, more than there are tensors \(20\), by config\.json"
    ):
        Checkpoint.open(folder)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Found by fuzzing: a line break in a tensor's name broke the one-line message."""
    path = tmp_path / "m.gguf"
    data = PLAIN.read_bytes()
    place = data.index(b"norm.weight")
    path.write_bytes(data[:place] + b"norm\n\x1b[2Jht" + b"\xff" * 4 + data[place + 15 :])
    with pytest.raises(UserError, match=r"norm\?\?\[2Jht: has 4294967295 dimensions") as caught:
        read_header(path)
    assert str(caught.value).isprintable()


def test_count_of_billions(tmp_path: Path) -> None:
    """A count or length that the file cannot hold is refused at once."""
    path = tmp_path / "m.gguf"
    for offset, size in ((8, 8), (16, 8), (24, 8)):
        data = bytearray(PLAIN.read_bytes())
        data[offset : offset + size] = struct.pack("<Q", 2**61)
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"m\.gguf: not a whole GGUF file"):
            read_header(path)


def test_a_panic_of_the_tokenizers_package(tmp_path: Path) -> None:
    """Found by fuzzing: a prefix longer than the tokens ends in a panic, which is no Exception to Python."""
    folder = Path(shutil.copytree(readers.SEEDS / "whole", tmp_path / "checkpoint"))
    description = json.loads((folder / "tokenizer.json").read_text())
    description["model"]["continuing_subword_prefix"] = "###"
    (folder / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"marks pieces of words \(continuing_subword_prefix '###'\)"):
        convert(folder, tmp_path / "out.gguf", Options(ENCODINGS["f16"], None), progress=False)
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(UserError, match="PanicException: range end"), readable(folder):
        raise panic("range end index 3 out of range")
    with pytest.raises(KeyboardInterrupt), readable(folder):
        raise KeyboardInterrupt
