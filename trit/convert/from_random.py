# SPDX-License-Identifier: MIT
"""Write a GGUF file of random ternary weights in the exact shape of a known model, to measure speed without it.

Example: trit dummy --shape bitnet-2b-4t --outtype i2_s --head q6_k --outfile dummy.gguf

The file loads and runs like the real one and says nothing sensible. One seed gives the same ternary matrices in every
type, llama.cpp's for any floats among them, so that an i2_s and a q4_0 file can be compared. The vocabulary is a real
one from the engine's tree.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trit.base import by_name
from trit.base.errors import UserError
from trit.base.files import atomic_output, check_output, refuse_node
from trit.base.flags import SEEDS, ArgumentParser, a_path, whole
from trit.base.places import INSTALLED
from trit.convert.embedding import map_pieces, quantize_rows
from trit.convert.random_heads import head_pieces
from trit.convert.tokenizer import load_tokenizer, padding_name
from trit.gguf.encoding_table import DEFAULT, SCALE_AT
from trit.gguf.encodings import ENCODINGS, Encoding, check_fits
from trit.gguf.made import default_model
from trit.gguf.types import GGMLQuantizationType, GGUFValueType, GGUFWriter, block_of, quiet_gguf_package, read_header
from trit.gguf.writer import PlannedTensor, StreamWriter, output_errors
from trit.models.families.base import positive_int
from trit.models.json_files import read_json
from trit.models.shapes import SHAPES, SIZES, VOCABULARIES, Shape, matrices

HEADS = ("f16", "f32", "q8_0", "q6_k", "q4_k")
# Weights that are drawn at once. Another number gives other weights.
CHUNK_VALUES = 1 << 22
UNUSED_TOKEN = 5

Random = np.random.Generator
log = logging.getLogger(__name__)


def with_vocabulary(shape: Shape) -> Shape:
    """The shape with the number of tokens that its checkpoint folder says, where the vocabulary is one's."""
    source = _vocabulary(shape)
    if not source.is_dir():
        return shape
    return replace(shape, vocab=positive_int(read_json(source / "config.json"), "vocab_size"))


def _vocabulary(shape: Shape) -> Path:
    """Where the vocabulary is taken from; the engine's own ones are not in a package, which takes its model's."""
    of_engine = isinstance(shape.vocabulary, str)
    return default_model() if INSTALLED and of_engine else VOCABULARIES / shape.vocabulary


def planned_tensors(shape: Shape, outtype: OutType, head: str) -> list[PlannedTensor]:
    """Every tensor of the model in the order of the file; raises UserError if the type does not fit a matrix."""
    hidden, ffn = shape.hidden, shape.ffn
    f32, head_type = GGMLQuantizationType.F32, GGMLQuantizationType[head.upper()]
    ternary = matrices(shape)
    norms = {"attn_norm": hidden, "ffn_norm": hidden}
    if shape.architecture != "llama":
        norms |= {"attn_sub_norm": hidden, "ffn_sub_norm": ffn}
    for name, (_, k) in ternary.items():
        check_fits(outtype, f"blk.0.{name}.weight", k)
    block = block_of(head)
    if hidden % block:
        raise UserError(f"token_embd.weight: {hidden} columns, {head} needs a multiple of {block}; use --head q8_0")
    planned = [PlannedTensor("token_embd.weight", (shape.vocab, hidden), head_type)]
    for i in range(shape.layers):
        planned += [PlannedTensor(f"blk.{i}.{n}.weight", (size,), f32) for n, size in norms.items()]
        planned += [PlannedTensor(f"blk.{i}.{n}.weight", nk, outtype.ggml_type) for n, nk in ternary.items()]
    planned.append(PlannedTensor("output_norm.weight", (hidden,), f32))
    if not shape.tied:
        planned.append(PlannedTensor("output.weight", (shape.vocab, hidden), head_type))
    return planned


FIELDS = (0, 2, 4, 6)
# The 81 bytes that hold four valid 2-bit codes.
VALID_BYTES = np.array([b for b in range(256) if all((b >> shift) & 3 < 3 for shift in FIELDS)], dtype=np.uint8)
# Two of them: numpy draws 16 bits as fast as 8.
VALID_PAIRS = np.stack(np.meshgrid(VALID_BYTES, VALID_BYTES), axis=-1).view(np.uint16).reshape(-1)
# i2_s and tq2_0 put the four weights of a byte in opposite order: this table swaps them.
SWAPPED = np.array([sum(((b >> shift) & 3) << (6 - shift) for shift in FIELDS) for b in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class FloatType:
    """A type of llama.cpp for any floats; ternary ones are put into it to compare, not always exactly.

    Attributes:
        name: What ``--outtype`` calls it.
        ggml_type: Number of the tensor type in a GGUF file.
        file_type: Value of ``general.file_type`` (llama.cpp's llama_ftype).
    """

    name: str
    ggml_type: GGMLQuantizationType
    file_type: int

    @property
    def block(self) -> int:
        """The number of inputs k has to be a multiple of this."""
        return block_of(self.name)


FLOAT_TYPES = {
    kind.name.lower(): FloatType(kind.name.lower(), kind, file_type)
    for kind, file_type in (
        (GGMLQuantizationType.BF16, 32),
        (GGMLQuantizationType.Q8_0, 7),
        (GGMLQuantizationType.Q6_K, 18),
        (GGMLQuantizationType.Q5_K, 16),
        (GGMLQuantizationType.Q5_1, 9),
        (GGMLQuantizationType.Q5_0, 8),
        (GGMLQuantizationType.Q4_K, 14),
        (GGMLQuantizationType.Q4_1, 3),
        (GGMLQuantizationType.Q4_0, 2),
    )
}
OutType = Encoding | FloatType
OUTTYPES: dict[str, OutType] = {**ENCODINGS, **FLOAT_TYPES}


def _random_codes(rng: Random, rows: int, k: int) -> npt.NDArray[Any]:
    """Random ternary rows, a third of each value: uint8 [rows, k / 4], packed as i2_s, or int8 [rows, k].

    Packed where k allows it, as eight weights at a time are drawn faster than one.
    """
    if k % ENCODINGS["i2_s"].block:
        return rng.integers(-1, 2, (rows, k), dtype=np.int8)
    return VALID_PAIRS[rng.integers(0, len(VALID_PAIRS), (rows, k // 8), dtype=np.uint16)].view(np.uint8)


def _ternary(codes: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """What :func:`_random_codes` gave, as int8 [rows, k]."""
    if codes.dtype == np.int8:
        return codes
    rows, columns = codes.shape
    tail = np.zeros(ENCODINGS["i2_s"].tail_bytes, dtype=np.uint8)
    return ENCODINGS["i2_s"].unpack(np.concatenate([codes.reshape(-1), tail]), rows, 4 * columns, "codes")[0]


def _encode(codes: npt.NDArray[Any], scale: float, outtype: OutType) -> npt.NDArray[Any]:
    """Bytes of rows that :func:`_random_codes` gave, without what follows the last row of a matrix."""
    if isinstance(outtype, FloatType):
        return quantize_rows(_ternary(codes) * np.float32(scale), outtype.ggml_type)
    if outtype.name == "i2_s":
        return codes
    if outtype.name == "tq2_0":
        blocks = np.empty((codes.size // 64, 66), dtype=np.uint8)
        blocks[:, :64] = SWAPPED[codes].reshape(-1, 64)
        blocks[:, 64:] = np.array([scale], dtype="<f2").view(np.uint8)
        return blocks
    data = outtype.pack(_ternary(codes), scale)
    return data[: len(data) - outtype.tail_bytes]


def matrix_pieces(
    rng: Random, n: int, k: int, outtype: OutType, *, block_scales: bool = False
) -> Iterator[npt.NDArray[Any]]:
    """Bytes of a random ternary matrix [n, k], scaled so that unit inputs give unit outputs, some rows at a time.

    The same generator state gives the same matrix in every type: how many rows are drawn at once depends on k alone.
    """
    scale, rows = float(np.sqrt(1.5 / k)), max(1, CHUNK_VALUES // k)
    codes = (_random_codes(rng, min(rows, n - start), k) for start in range(0, n, rows))
    # No other state than the codes' own may be drawn from while they are.
    scale_rng = rng.spawn(1)[0]
    for piece in map_pieces(lambda part: _encode(part, scale, outtype), codes):
        if block_scales:
            vary_scales(scale_rng, piece, outtype)
        yield piece
    if isinstance(outtype, Encoding) and outtype.tail_bytes:
        tail = np.zeros(outtype.tail_bytes, dtype=np.uint8)
        tail[:4] = np.array([scale], dtype="<f4").view(np.uint8)
        yield tail


def vary_scales(rng: Random, data: npt.NDArray[Any], outtype: OutType) -> None:
    """Give every block a scale of its own, half to one and a half of what it was, as weight-only training does."""
    assert isinstance(outtype, Encoding)
    at = SCALE_AT[outtype.name]
    blocks = data.reshape(-1, outtype.block_bytes)
    scales = np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2")[:, 0].astype(np.float32)
    scales *= rng.uniform(0.5, 1.5, len(scales)).astype(np.float32)
    blocks[:, at : at + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)


def _copy_vocabulary(writer: GGUFWriter, source: Path, wanted: int) -> None:
    """Copy the ``tokenizer.*`` keys of a GGUF file, filled up with unused tokens to ``wanted``.

    Raises:
        UserError: the file is not there, or has more tokens than wanted.
    """
    if not source.is_file():
        raise UserError(f"{source}: is missing; name a GGUF file or a checkpoint folder with --vocab")
    header = read_header(source)
    tokens = header.metadata.get("tokenizer.ggml.tokens", [])
    have, taken = len(tokens), set(tokens)
    if not 0 < have <= wanted:
        raise UserError(f"{source}: has {have} tokens, this shape needs 1 to {wanted}; name another file with --vocab")
    fill = {
        "tokenizer.ggml.tokens": [padding_name(i, taken) for i in range(have, wanted)],
        "tokenizer.ggml.token_type": [UNUSED_TOKEN] * (wanted - have),
        "tokenizer.ggml.scores": [0.0] * (wanted - have),
    }
    for key, value in header.metadata.items():
        if not key.startswith("tokenizer."):
            continue
        kind, element = header.types[key]
        if kind is GGUFValueType.ARRAY:
            value = value + fill.get(key, [])
        if element is GGUFValueType.STRING:
            value = [text.encode("utf-8", errors="surrogateescape") for text in value]
        writer.add_key_value(key, value, kind, element)


def _write_metadata(writer: GGUFWriter, name: str, shape: Shape, outtype: OutType) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(outtype.file_type)
    writer.add_quantization_version(2)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def generate(
    name: str,
    shape: Shape,
    outtype: OutType,
    head: str,
    outfile: Path,
    seed: int = 0,
    *,
    block_scales: bool = False,
    vocab_only: bool = False,
) -> int:
    """Write the file; returns the number of ternary weights in it.

    Args:
        name: ``general.name`` of the file.
        shape: Sizes of the model.
        outtype: Type of the ternary matrices.
        head: Type of embedding and head, one of ``HEADS``.
        outfile: Where the file goes; what is there is replaced.
        seed: Of everything that is random.
        block_scales: Every block of weights has a scale of its own, as in models that were trained weight-only.
        vocab_only: The file has metadata and vocabulary, no weights.

    Raises:
        UserError: a matrix does not fit the type, or the vocabulary is missing.
        TritError: the file cannot be written.
    """
    source, shape = _vocabulary(shape), with_vocabulary(shape)
    planned = [] if vocab_only else planned_tensors(shape, outtype, head)
    if seed < 0:
        raise UserError(f"--seed {seed}: expected 0 or more")
    rng = np.random.default_rng(seed)
    weights = 0
    with output_errors(outfile, planned), atomic_output(outfile) as partial:
        writer = StreamWriter(partial, shape.architecture)
        try:
            _write_metadata(writer.metadata, name, shape, outtype)
            if source.is_dir():
                load_tokenizer(source, read_json(source / "config.json"), shape.vocab).write(writer.metadata)
            else:
                _copy_vocabulary(writer.metadata, source, shape.vocab)
            for tensor in planned:
                writer.plan(tensor)
            writer.begin()
            for tensor in tqdm(planned, desc="writing", unit="tensor", disable=None):
                log.info("%s: %s, %s bytes", tensor.name, " x ".join(map(str, tensor.shape)), f"{tensor.nbytes:,}")
                if len(tensor.shape) == 1:
                    writer.write([np.ones(tensor.shape, dtype=np.float32)])
                elif tensor.name.startswith("blk."):
                    n, k = tensor.shape
                    # A generator of its own: the matrix does not depend on what was drawn for the head before.
                    matrix_rng = np.random.default_rng([seed, weights])
                    writer.write(matrix_pieces(matrix_rng, n, k, outtype, block_scales=block_scales))
                    weights += n * k
                else:
                    writer.write(head_pieces(rng, tensor))
        finally:
            writer.close()
    return weights


def say(outfile: Path, outtype: str, head: str, weights: int) -> None:
    """Print what a file that was written holds."""
    holds = f"{weights:,} random {outtype} weights, head {head}" if weights else "a vocabulary, no weights"
    print(f"{outfile}: {outfile.stat().st_size / 1e6:.1f} MB, {holds}")


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="trit dummy", description="Write a random ternary model in a known shape.")
    shapes = parser.add_mutually_exclusive_group(required=True)
    shapes.add_argument("--shape", choices=list(SHAPES), help="of a published model, or of the bundled one (story)")
    shapes.add_argument("--model-size", choices=list(SIZES), help="of bitnet.cpp's table of sizes")
    parser.add_argument(
        "--outtype", choices=list(OUTTYPES), default=DEFAULT, help=f"ternary matrices (default: {DEFAULT})"
    )
    parser.add_argument("--head", choices=HEADS, default="f16", help="embedding and head (default: f16)")
    parser.add_argument("--outfile", type=a_path, required=True)
    parser.add_argument("--block-scales", action="store_true", help="a scale of its own for every block of weights")
    parser.add_argument("--layers", type=whole(1), help="fewer blocks than the model has")
    parser.add_argument("--seed", type=SEEDS, default=0)
    parser.add_argument("--vocab", type=a_path, help="GGUF file, checkpoint folder or name to take the vocabulary from")
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, write the file, say what is in it."""
    args = _parser().parse_args(argv)
    name, shape = (args.shape, SHAPES[args.shape]) if args.shape else (args.model_size, SIZES[args.model_size])
    if args.layers is not None:
        shape = replace(shape, layers=args.layers)
    if args.vocab is not None:
        shape = replace(shape, vocabulary=by_name.named_file(args.vocab).resolve())
    refuse_node(args.outfile)
    if args.outfile.exists() and not args.force:
        raise UserError(f"{args.outfile}: exists already; pass --force to replace it")
    check_output("--outfile", args.outfile)
    if args.block_scales and args.outtype not in SCALE_AT:
        raise UserError(f"--block-scales: {args.outtype} has no scales per block; use {', '.join(SCALE_AT)}")
    quiet_gguf_package()
    outtype, head = args.outtype, args.head
    weights = generate(
        f"random {name}", shape, OUTTYPES[outtype], head, args.outfile, args.seed, block_scales=args.block_scales
    )
    say(args.outfile, outtype, head, weights)
    return 0
