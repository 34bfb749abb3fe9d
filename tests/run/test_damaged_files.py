# SPDX-License-Identifier: MIT
"""run_inference_server.py with damaged files: a sentence and no engine; and files that go while it serves."""

from __future__ import annotations

import http.client
import json
import os
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.run.test_run_inference_server import free_port
from tests.support.foreign_files import Key, Tensor, keys_of, tensors_of, write_gguf
from trit.base.errors import run_main
from trit.base.places import ROOT
from trit.gguf.source import Source
from trit.run import serve

U16, U32, I32, F32, STRING, ARRAY = 2, 4, 5, 6, 8, 9
GGML = "tokenizer.ggml."
NAN = float("nan")
SECONDS = 5.0  # for one refusal; they take a tenth of a second


class Parts:
    """The story model, taken apart."""

    def __init__(self, path: Path) -> None:
        source = Source.open(path)
        self.raw = path.read_bytes()
        self.data = source.header.data_offset
        self.keys = keys_of(source.header)
        self.tensors = tensors_of(source)
        self.name = str(source.header.metadata["general.architecture"])

    def key(self, name: str, kind: int = 0, value: Any = None, element: int | None = None) -> list[Key]:
        """The keys with another value of one, without it if there is none; a dot in front is the architecture's."""
        full = self.name + name if name.startswith(".") else name
        kept = [key for key in self.keys if key[0] != full]
        return kept if value is None else [*kept, (full, kind, element, value)]

    def tensor(self, name: str, change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The tensors with one changed."""
        assert sum(tensor[0] == name for tensor in self.tensors) == 1
        return [change(tensor) if tensor[0] == name else tensor for tensor in self.tensors]


def word(at: int, value: int, kind: str = "<Q") -> Callable[[Parts], bytes]:
    """The file with another number at an offset of its header."""

    def change(parts: Parts) -> bytes:
        new = struct.pack(kind, value)
        return parts.raw[:at] + new + parts.raw[at + len(new) :]

    return change


BYTES: dict[str, Callable[[Parts], bytes]] = {
    "nothing": lambda parts: b"",
    "its first byte": lambda parts: b"G",
    "its first four": lambda parts: b"GGUF",
    "a third of its header": lambda parts: parts.raw[: parts.data // 3],
    "its header": lambda parts: parts.raw[: parts.data],
    "some weights": lambda parts: parts.raw[: parts.data + 97],
    "all but a byte": lambda parts: parts.raw[:-1],
    "zeros": lambda parts: bytes(len(parts.raw)),
    "a page": lambda parts: b"<html><body>Please log in</body></html>",
    "a pointer": lambda parts: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 9\n",
    "a shard": lambda parts: struct.pack("<Q", 2) + b"{}" + bytes(64),
    "an archive": lambda parts: b"PK\x03\x04" + parts.raw,
    "an older format": lambda parts: b"tjgg" + parts.raw[4:],
    "version 1": word(4, 1, "<I"),
    "version 9": word(4, 9, "<I"),
    "the other order of bytes": word(4, 3, ">I"),
    "tensors without end": word(8, 1 << 62),
    "no tensors": word(8, 0),
    "keys without end": word(16, 1 << 40),
    "no keys": word(16, 0),
    "a key without end": word(24, (1 << 64) - 1),
}
KEYS: dict[str, tuple[Any, ...]] = {
    "no architecture": ("general.architecture",),
    "an unknown architecture": ("general.architecture", STRING, "bitnet-c2"),
    "a number for an architecture": ("general.architecture", U32, 3),
    "another architecture": ("general.architecture", STRING, "gemma3"),
    "an adapter": ("general.type", STRING, "adapter"),
    "no layers": (".block_count", U32, 0),
    "fewer layers": (".block_count", U32, 2),
    "more layers": (".block_count", U32, 6),
    "too many layers": (".block_count", U32, 70000),
    "no heads": (".attention.head_count", U32, 0),
    "heads that do not divide": (".attention.head_count_kv", U32, 3),
    "no width": (".embedding_length", U32, 0),
    "another width": (".embedding_length", U32, 512),
    "an endless width": (".embedding_length", U32, (1 << 32) - 1),
    "no context": (".context_length", U32, 0),
    "a context in words": (".context_length", STRING, "1024"),
    "an odd rotation": (".rope.dimension_count", U32, 63),
    "a rotation by nothing": (".rope.freq_base", F32, 0.0),
    "no epsilon": (".attention.layer_norm_rms_epsilon",),
    "an epsilon below 0": (".attention.layer_norm_rms_epsilon", F32, -1.0),
    "experts": (".expert_count", U32, 9),
    "no tokens": (f"{GGML}tokens",),
    "one token": (f"{GGML}tokens", ARRAY, ["a"], STRING),
    "tokens that are numbers": (f"{GGML}tokens", ARRAY, [1, 2], U32),
    "no merges": (f"{GGML}merges",),
    "another kind of tokens": (f"{GGML}model", STRING, "llama"),
    "an unknown kind of tokens": (f"{GGML}model", STRING, "tekken"),
    "an unknown splitting": (f"{GGML}pre", STRING, "gpt-9"),
    "types for two tokens": (f"{GGML}token_type", ARRAY, [1, 1], I32),
    "an odd alignment": ("general.alignment", U32, 48),
    "one part of two": ("split.count", U16, 2),
}
NORM, MATRIX = "blk.1.ffn_norm.weight", "blk.1.ffn_up.weight"
TENSORS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a norm of NaN": (NORM, lambda t: (*t[:3], struct.pack("<f", NAN) + t[3][4:])),
    "a shorter norm": (NORM, lambda t: (t[0], (t[1][0] - 32,), *t[2:])),
    "a norm of an unknown type": (NORM, lambda t: (*t[:2], 250, t[3])),
    "a tensor of another name": (NORM, lambda t: ("blk.1.norm.weight", *t[1:])),
    "a name without an end": (MATRIX, lambda t: ("blk.1." + "x" * 80, *t[1:])),
    "a tensor in no layer": (MATRIX, lambda t: ("blk.one.ffn_up.weight", *t[1:])),
    "a matrix on its side": (MATRIX, lambda t: (t[0], tuple(reversed(t[1])), *t[2:])),
    "a scale of NaN": (MATRIX, lambda t: (*t[:3], t[3][:-32] + struct.pack("<f", NAN) + t[3][-28:])),
    "a scale below 0": (MATRIX, lambda t: (*t[:3], t[3][:-32] + struct.pack("<f", -0.5) + t[3][-28:])),
}


@pytest.fixture(scope="module")
def parts(story_gguf: Path) -> Parts:
    return Parts(story_gguf)


@pytest.mark.parametrize("kind", [*BYTES, *KEYS, *TENSORS])
def test_a_sentence_instead_of_a_server(
    kind: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.gguf"
    if kind in BYTES:
        path.write_bytes(BYTES[kind](parts))
    elif kind in KEYS:
        write_gguf(path, parts.key(*KEYS[kind]), parts.tensors)
    else:
        write_gguf(path, parts.keys, parts.tensor(*TENSORS[kind]))
    monkeypatch.setattr(serve, "supervise", lambda *_: pytest.fail("the engine was started"))
    begun = time.process_time()
    assert run_main(serve.main, ["-m", str(path), "--port", str(free_port())]) == 2
    assert time.process_time() - begun < SECONDS
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and str(path) in err


def start(model: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The real server, and its address."""
    port = free_port()
    command = [sys.executable, str(ROOT / "run_inference_server.py"), "-m", str(model), "--port", str(port), "-t", "1"]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file), f"http://127.0.0.1:{port}"


def wait(process: subprocess.Popen[bytes], address: str) -> None:
    """Until the server answers."""
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < end
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.1)


def ask(address: str) -> str:
    """The server's greedy answer to a question."""
    prompt = "John moved to the office. Mary went to the garden. Where is Mary?\nAnswer:"
    body = json.dumps({"prompt": prompt, "n_predict": 7, "temperature": 0, "cache_prompt": False}).encode()
    request = urllib.request.Request(f"{address}/completion", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(json.load(response)["content"])


@contextmanager
def serving(model: Path, parts: Parts, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A whole file at ``model``, and a server that has answered with it; it is ended with the block."""
    model.write_bytes(parts.raw)
    process, address = start(model, log)
    try:
        wait(process, address)
        assert ask(address) == " Mary is in the garden."
        yield process, address
    finally:
        process.kill()
        process.wait()


def test_weights_that_are_no_ternary_ones(engine_bin: Path, parts: Parts, tmp_path: Path) -> None:
    """Only the engine reads all of them."""
    broken = parts.tensor(MATRIX, lambda t: (*t[:3], b"\xff" + t[3][1:]))
    process, _ = start(write_gguf(tmp_path / "m.gguf", parts.keys, broken), tmp_path / "log")
    assert process.wait(timeout=60) == 2
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert f"the i2_s tensor {MATRIX} holds a code that stands for no weight: the file is damaged" in last


@pytest.mark.skipif(sys.platform != "linux", reason="who else tells that a page is gone is not known")
def test_a_file_that_is_cut_short_while_it_serves(engine_bin: Path, parts: Parts, tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    with serving(model, parts, tmp_path / "log") as (process, address):
        os.truncate(model, parts.data)
        # Nothing of it is read any more, so the server does not end by what is gone.
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(address)
            assert refused.value.code == 503
            assert "the model's file m.gguf was written to" in json.load(refused.value)["error"]["message"]
        assert process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="who else tells that a page is gone is not known")
def test_a_file_that_is_cut_short_within_an_answer(engine_bin: Path, parts: Parts, tmp_path: Path) -> None:
    """Requests are looked at when they begin; this one finds pages that are gone."""
    model = tmp_path / "m.gguf"
    asked = {"prompt": "Mary", "n_predict": 400, "ignore_eos": True, "stream": True, "n_probs": 300}
    for last in (False, False, True):
        with serving(model, parts, tmp_path / "log") as (process, address):
            request = urllib.request.Request(
                f"{address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                assert response.readline().startswith(b"data: ")
                os.truncate(model, parts.data)
                with suppress(OSError, http.client.HTTPException):
                    response.read()
            try:
                assert process.wait(timeout=5) == 2
                break
            except subprocess.TimeoutExpired:
                assert not last, "each time the answer was whole before the file was cut"
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith("error: the model's file was cut short or cannot")


def test_a_file_that_is_replaced_while_it_serves(engine_bin: Path, parts: Parts, tmp_path: Path) -> None:
    """By another one of its name, as downloads and conversions do it: the old one stays open."""
    model = tmp_path / "m.gguf"
    with serving(model, parts, tmp_path / "log") as (_, address):
        (tmp_path / "new").write_bytes(b"GGUF")
        (tmp_path / "new").replace(model)
        assert ask(address) == " Mary is in the garden."
