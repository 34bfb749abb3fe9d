# SPDX-License-Identifier: MIT
"""Peak memory and time of a conversion, on a made-up checkpoint of a real model's size.

Example: trit committed convert-memory --shape llama3-8b --workdir /tmp/convert    # needs 7 GB there

The checkpoint is packed (uint8 with weight_scale, embeddings in bfloat16), written shard by shard with random
values, and LLaMA 3's vocabulary from the engine's tree. The conversion runs in a process of its own, from a warm disk
cache; its peak is the kernel's own count (VmHWM), Python and libraries included. Linux only.
"""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trit.base.errors import EXIT_FAILED, EXIT_OK, TritError, UserError
from trit.base.flags import ArgumentParser
from trit.base.host import cpu_name
from trit.base.places import ROOT
from trit.convert.from_random import VALID_BYTES
from trit.convert.pretokenizers import LLAMA_3
from trit.gguf.types import read_header
from trit.models.families import find_family
from trit.models.families.base import Kind
from trit.models.shapes import SHAPES, VOCABULARIES, Shape

SHARD_BYTES = 1_000_000_000
PIECE_BYTES = 1 << 24
CONTROL_TOKEN = 3
LIMIT_BYTES = 3_000_000_000
CHILD = """
import sys, time
from pathlib import Path
from trit.base.errors import run_main
from trit.convert.command import main
code = run_main(main, sys.argv[1:])
status = Path("/proc/self/status").read_text()
print("peak", 1024 * int(status.split("VmHWM:")[1].split()[0]), time.process_time())
sys.exit(code)
"""

Tensor = tuple[str, str, tuple[int, ...]]
BYTES = {"U8": 1, "BF16": 2}


def _nbytes(*some: Tensor) -> int:
    return sum(BYTES[dtype] * math.prod(shape) for _, dtype, shape in some)


def tensors(config: Mapping[str, Any]) -> list[Tensor]:
    """Name, dtype and shape of every tensor of the checkpoint."""
    found: list[Tensor] = []
    for spec in find_family(config).tensors(config):
        if spec.kind is Kind.TERNARY:
            n, k = spec.shape
            found += [(spec.source, "U8", (n // 4, k)), (f"{spec.source}_scale", "BF16", (1,))]
        else:
            found.append((spec.source, "BF16", spec.shape))
    return found


def _values(rng: np.random.Generator, dtype: str, count: int) -> Iterator[npt.NDArray[Any]]:
    """Random packed codes, or bfloat16 patterns of values around 0.05 in size (1 for a single value)."""
    if count == 1:
        yield np.array([0x3F80], dtype="<u2")
        return
    for start in range(0, count, PIECE_BYTES):
        size = min(PIECE_BYTES, count - start)
        if dtype == "U8":
            yield VALID_BYTES[rng.integers(0, len(VALID_BYTES), size, dtype=np.uint8)]
        else:
            values = rng.standard_normal(size, dtype=np.float32) * np.float32(0.05)
            yield (values.view(np.uint32) >> 16).astype("<u2")


def _write_shard(path: Path, part: Sequence[Tensor], rng: np.random.Generator, bar: tqdm) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, dtype, shape in part:
        end = offset + _nbytes((name, dtype, shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, dtype, shape in part:
            for piece in _values(rng, dtype, math.prod(shape)):
                file.write(piece.tobytes())
                bar.update(piece.nbytes)


def _write_tokenizer(folder: Path, source: Path) -> None:
    """tokenizer.json from the vocabulary of a GGUF file."""
    metadata = read_header(source).metadata
    texts, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    added = [
        {"id": i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for i, (text, kind) in enumerate(zip(texts, types, strict=True))
        if kind == CONTROL_TOKEN
    ]
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {text: i for i, text in enumerate(texts)}
    merges = [line for line in metadata["tokenizer.ggml.merges"] if line.replace(" ", "") in vocabulary]
    description = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": True},
    }
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")


def make_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Write the folder, one shard at a time; raises UserError if the vocabulary is missing."""
    source = VOCABULARIES / "ggml-vocab-llama-bpe.gguf"
    if not source.is_file():
        raise UserError(f"{source}: is missing; fetch the engine's tree with setup_env.py")
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM" if shape.architecture == "llama" else "BitNetForCausalLM"],
        "hidden_act": "silu" if shape.architecture == "llama" else "relu2",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder, source)
    parts: list[list[Tensor]] = [[]]
    for tensor in tensors(config):
        if parts[-1] and _nbytes(*parts[-1], tensor) > SHARD_BYTES:
            parts.append([])
        parts[-1].append(tensor)
    rng = np.random.default_rng(seed)
    weight_map: dict[str, str] = {}
    total = sum(_nbytes(*part) for part in parts)
    with tqdm(total=total, unit="B", unit_scale=True, desc="making the checkpoint", disable=None) as bar:
        for i, part in enumerate(parts):
            name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
            _write_shard(folder / name, part, rng, bar)
            weight_map |= dict.fromkeys((tensor[0] for tensor in part), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def measure(folder: Path, flags: Sequence[str]) -> tuple[float, float, int]:
    """Seconds, CPU seconds and peak bytes of one conversion.

    Raises:
        TritError: the conversion failed.
    """
    for path in folder.glob("*.safetensors"):  # into the disk cache
        with path.open("rb") as file:
            while file.read(PIECE_BYTES):
                pass
    command = [sys.executable, "-c", CHILD, str(folder), "--outfile", str(folder / "out.gguf"), "--force", *flags]
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise TritError("the conversion failed")
    *lines, last = done.stdout.strip().splitlines()
    print(*lines, sep="\n")
    _, peak, cpu_s = last.split()
    return seconds, float(cpu_s), int(peak)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the checkpoint unless it is there, convert it, print time and peak; exit 1 if the peak is over 3 GB."""
    parser = ArgumentParser(prog="trit committed convert-memory", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--shape", choices=["bitnet-2b-4t", "llama3-8b"], required=True)
    add("--workdir", type=Path, required=True, help="where the checkpoint and the file go, and stay")
    add("flags", nargs="*", metavar="FLAG", help="after --: flags for utils.convert")
    args = parser.parse_args(argv)
    folder = args.workdir / args.shape
    if not (folder / "model.safetensors.index.json").is_file():
        make_checkpoint(folder, SHAPES[args.shape])
    seconds, cpu_s, peak = measure(folder, args.flags)
    limit = f"limit {LIMIT_BYTES / 1e9:.0f} GB"
    print(f"{args.shape} on {cpu_name()}: {seconds:.1f} s ({cpu_s:.1f} s of CPU), peak {peak / 1e9:.2f} GB ({limit})")
    return EXIT_OK if peak < LIMIT_BYTES else EXIT_FAILED
