# SPDX-License-Identifier: MIT
"""What the converter leaves behind: nothing half-written, nothing overwritten, nothing damaged, little memory used."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.checkpoints import edit_json, make_checkpoint, refusal
from trit.base.errors import TritError, run_main
from trit.base.places import ROOT
from trit.convert.command import main
from trit.convert.from_checkpoint import Options, convert
from trit.convert.read_back import verify
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer checkpoint of masters."""
    return make_checkpoint(tmp_path_factory.mktemp("pristine") / "m", layers=1, hidden=128, ffn=256).directory


@pytest.fixture
def master(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


def test_existing_output_is_kept_without_force(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outfile = master / "ggml-model-i2_s.gguf"
    outfile.write_text("precious")
    assert "ggml-model-i2_s.gguf: exists already; pass --force" in refusal(capsys, master)
    assert outfile.read_text() == "precious"
    assert run_main(main, [str(master), "--force"]) == 0
    assert read_header(outfile).tensors


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users: a folder that this user cannot write to")
def test_read_only_folder(pristine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o755)
        checkpoint = Path(shutil.copytree(pristine, base / "checkpoint"))
        for file in checkpoint.iterdir():
            file.chmod(0o644)
        checkpoint.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)  # root may write anywhere
        try:
            line = refusal(capsys, checkpoint)
        finally:
            if root:
                os.seteuid(0)
            checkpoint.chmod(0o755)
    assert "cannot be written (Permission denied); choose another place" in line


def test_output_path_that_is_no_path(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, master, "--outfile", str(master / "config.json" / "m.gguf"))
    assert "m.gguf: cannot be written" in line
    line = refusal(capsys, master, "--outfile", str(master / "new" / "m.gguf"))
    assert f"there is no folder {master / 'new'}" in line and not (master / "new").exists()


CHILD = """
import sys, time
import trit.convert.from_checkpoint as pipeline
from trit.base.errors import run_main
from trit.convert.command import main

def wait(*arguments):
    print("written", flush=True)
    time.sleep(60)

pipeline.verify = wait
sys.exit(run_main(main, sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_conversion(number: signal.Signals, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped when all is written but not yet checked: no file under the final name, and the next run works."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(master)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    if number is signal.SIGINT:
        assert process.returncode == 130 and error.strip() == "interrupted"
        assert not list(master.glob(".*.partial"))
    else:
        assert process.returncode == -signal.SIGKILL
    assert not list(master.glob("*.gguf"))
    assert run_main(main, [str(master)]) == 0
    assert "decode to the source's values" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("limit", [4_096, 60_000])
def test_full_disk(limit: int, master: Path) -> None:
    """A limit on file size stands for the full disk: the header alone is too long, or the tensors are."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    code += "import sys; from trit.base.errors import run_main; from trit.convert.command import main\n"
    code += "sys.exit(run_main(main, sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, str(master)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "ggml-model-i2_s.gguf: cannot be written (File too large); it needs 0.1 MB" in done.stderr
    assert not list(master.glob("*.gguf")) and not list(master.glob(".*.partial"))


@pytest.mark.parametrize("place", ["ternary", "scale", "norm"])
def test_damage_between_writing_and_reading_is_noticed(
    place: str, master: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(paths: list[Path], *arguments: Any) -> str:
        (path,) = paths
        table = read_header(path).tensors
        matrix, norm = table["blk.0.ffn_up.weight"], table["blk.0.ffn_norm.weight"]
        offset = {"ternary": matrix.offset + 99, "scale": matrix.offset + matrix.nbytes - 32, "norm": norm.offset}[
            place
        ]
        with path.open("r+b") as file:
            file.seek(offset)
            old = file.read(1)[0]
            file.seek(offset)
            # A flip from one valid code to another: 0 <-> 1 in the lowest field.
            file.write(bytes([old ^ 1 if old & 3 < 2 else old & 0xFC]))
        return verify(paths, *arguments)

    monkeypatch.setattr("trit.convert.from_checkpoint.verify", damage)
    with pytest.raises(TritError, match=r"blk\.0\.ffn_\w+\.weight: reads back with other values"):
        convert(master, master / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert not list(master.glob("*.gguf")) and not list(master.glob(".*.partial"))


MEASURE = """
import sys
from pathlib import Path
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS

def peak():
    # Not ru_maxrss: a child inherits its parent's.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[1]) / "m.gguf", Options(ENCODINGS[sys.argv[2]], "f16"), progress=False)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("outtype", ["i2_s", "f16"])
def test_peak_memory_is_two_of_the_largest_tensors(outtype: str, master: Path) -> None:
    """A made-up checkpoint of 190 MB, whose largest tensor has 64 MB."""
    vocab, hidden, ffn = 16384, 2048, 8192
    edit_json(master / "config.json", vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn)
    generator = torch.Generator().manual_seed(0)
    piece = torch.randn(1 << 16, generator=generator).bfloat16()

    def tensor(*shape: int) -> torch.Tensor:
        size = math.prod(shape)
        return piece.repeat(-(-size // piece.numel()))[:size].reshape(shape).clone()

    kv = hidden // 4 * json.loads((master / "config.json").read_text())["num_key_value_heads"]
    layer = {
        **{f"self_attn.{name}_proj": (n, hidden) for name, n in zip("qkvo", (hidden, kv, kv, hidden), strict=True)},
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm"), (hidden,)),
        "mlp.ffn_sub_norm": (ffn,),
    }
    tensors = {f"model.layers.0.{name}.weight": tensor(*shape) for name, shape in layer.items()}
    tensors |= {"model.embed_tokens.weight": tensor(vocab, hidden), "model.norm.weight": tensor(hidden)}
    save_file(tensors, master / "model.safetensors")
    command = [sys.executable, "-c", MEASURE, str(master), outtype]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak, largest = int(done.stdout), 2 * vocab * hidden
    print(f"{outtype}: peak {peak / 1e6:.0f} MB above the start, largest tensor {largest / 1e6:.0f} MB")
    assert peak < 2 * largest
