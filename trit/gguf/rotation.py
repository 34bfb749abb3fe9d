# SPDX-License-Identifier: MIT
"""Weights in a rotated basis: what ``prism.hadamard.*`` keys say, and whether the engine can follow it.

Ternary-Bonsai-2's matrices are W' = W diag(s) H, which meet H (s * x); ``src/ggml/rotation.cpp`` does that in the
engine, and refuses the same keys. docs/formats.md has what each key means. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from trit.gguf.engine_keys import BOOL, I32, U32, Unsound
from trit.gguf.header import ARRAY, STRING, RawHeader
from trit.gguf.identify import Found

PREFIX = "prism.hadamard."
# Longer than what is read of every header.
SIGNS = f"{PREFIX}sign_values"
ARCHITECTURE = "qwen35"
TABLE = "token_embd.weight"
# Layouts of releases in a rotated basis; without these keys nothing tells whether a file is one.
LAYOUTS = ("pq2_0", "ptq1_0")

_I8 = 1
_MOST_BLOCK, _MOST_WIDTH = 8192, 1 << 24
_KEYS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "version": ((U32, None), (I32, None)),
    "block_size": ((U32, None), (I32, None)),
    "transform": ((STRING, None),),
    "axis": ((STRING, None),),
    "sign_mode": ((STRING, None),),
    "weight_names": ((ARRAY, STRING),),
    "inverse_weight_names": ((ARRAY, STRING),),
    "gdn_v_grouped": ((BOOL, None), (U32, None), (I32, None)),
}
_EXPLICIT: dict[str, tuple[tuple[int, int | None], ...]] = {
    **dict.fromkeys(("sign_widths", "sign_values"), ((ARRAY, I32), (ARRAY, U32), (ARRAY, _I8)))
}
# What the engine's graph multiplies with by the one function that rotates.
_FOLDABLE = re.compile(
    r"output\.weight|blk\.\d{1,3}\.(attn_(q|k|v|qkv|gate|output)|ssm_(out|alpha|beta)|ffn_(gate|up|down)|nextn\.eh_proj)"
    r"\.weight"
)


def is_rotated(header: RawHeader) -> bool:
    """Whether a file says that its weights are in a rotated basis."""
    return any(key.startswith(PREFIX) for key in header.metadata)


def may_be_rotated(header: RawHeader, found: Iterable[Found]) -> str | None:
    """The first tensor by which a file without these keys may be one whose keys were lost; None if there is none."""
    if is_rotated(header) or header.metadata.get("general.architecture") != ARCHITECTURE:
        return None
    return next((item.tensor.name for item in found if item.name in LAYOUTS), None)


def check_rotation(header: RawHeader) -> None:
    """Compare the keys with each other and with the tensors; raises Unsound.

    Args:
        header: Of the model; signs that were not read are not looked at.
    """
    if not is_rotated(header):
        return
    values = header.metadata
    name = {key.removeprefix(PREFIX): value for key, value in values.items() if key.startswith(PREFIX)}
    if (architecture := values.get("general.architecture")) != ARCHITECTURE:
        raise Unsound(
            f"its weights are rotated ({PREFIX}* keys), which is known of {ARCHITECTURE}, not of {architecture!a}"
        )
    for key in (key for key in values if key.startswith(PREFIX)):
        if key.removeprefix(PREFIX) not in _KEYS | _EXPLICIT:
            raise Unsound(f"{key} is a key of a rotation that is not known here; a newer trit.cpp may know it")
    _typed(header, _KEYS)
    for part, wanted in (
        ("version", 1),
        ("transform", "normalized-sylvester-walsh-hadamard"),
        ("axis", "input-last-dimension"),
    ):
        if name[part] != wanted:
            raise Unsound(f"{PREFIX}{part} is {name[part]!a:.60}, expected {wanted!a}")
    block = name["block_size"]
    if not 2 <= block <= _MOST_BLOCK or block & (block - 1):
        raise Unsound(f"{PREFIX}block_size is {block}, expected a power of two from 2 to {_MOST_BLOCK}")
    if name["sign_mode"] not in ("identity", "explicit"):
        raise Unsound(f"{PREFIX}sign_mode is {name['sign_mode']!a:.60}, expected 'identity' or 'explicit'")
    widths = None
    if name["sign_mode"] == "explicit":
        _typed(header, _EXPLICIT)
        widths = _widths(header, block)
    _check_tensors(header, block, widths)
    if name["gdn_v_grouped"]:
        _check_heads(header)


def wrong_rotation(header: RawHeader) -> str | None:
    """Why one file's rotation cannot be followed; None if it can, or if the tensors are in other files, too."""
    if "split.count" in header.metadata:
        return None
    try:
        check_rotation(header)
    except Unsound as error:
        return str(error)
    return None


def _typed(header: RawHeader, keys: dict[str, tuple[tuple[int, int | None], ...]]) -> None:
    for name, kinds in keys.items():
        key = f"{PREFIX}{name}"
        if key not in header.metadata:
            raise Unsound(f"{key} is missing, and its weights are rotated")
        if header.types[key] not in kinds:
            raise Unsound(f"{key} has a type that it cannot have")


def _widths(header: RawHeader, block: int) -> Collection[int]:
    """The widths that have signs; raises Unsound."""
    key = f"{PREFIX}sign_widths"
    widths, count = header.metadata[key], header.counts[SIGNS]
    if widths is None or not widths or len(set(widths)) != len(widths):
        raise Unsound(f"{key} has {header.counts[key]} widths, expected one for each that folded matrices have")
    for width in widths:
        if not 0 < width <= _MOST_WIDTH or width % block:
            raise Unsound(f"{key} holds {width}, no multiple of {PREFIX}block_size {block}")
    if sum(widths) != count:
        raise Unsound(f"{SIGNS} has {count} numbers, expected {sum(widths)} by sign_widths")
    if (signs := header.metadata[SIGNS]) is not None and (others := set(signs) - {1, -1}):
        raise Unsound(f"{SIGNS} holds {min(others)}, expected 1 and -1")
    return set(widths)


def _check_tensors(header: RawHeader, block: int, widths: Collection[int] | None) -> None:
    folded, tables = (header.metadata[f"{PREFIX}{name}"] for name in ("weight_names", "inverse_weight_names"))
    if not folded or tables is None:
        raise Unsound(
            f"{PREFIX}weight_names names {header.counts[f'{PREFIX}weight_names']} tensors, expected some to 1,024"
        )
    for name in tables:
        if name != TABLE:
            raise Unsound(f"{PREFIX}inverse_weight_names has {name!a:.60}, expected {TABLE}")
    for name in (*folded, *tables):
        if name != TABLE and not _FOLDABLE.fullmatch(name):
            raise Unsound(f"{PREFIX}weight_names has {name!a:.60}, which the engine's graph does not rotate")
        if name == TABLE and name in folded:
            raise Unsound(f"{PREFIX}weight_names has {TABLE}, which is a table of rows")
        if (tensor := header.tensors.get(name)) is None:
            raise Unsound(f"{PREFIX}weight_names has {name}, which is not in the file")
        if tensor.columns % block:
            raise Unsound(f"{name} has {tensor.columns} inputs, no multiple of {PREFIX}block_size {block}")
        if widths is not None and tensor.columns not in widths:
            raise Unsound(f"{PREFIX}sign_widths has no signs for the {tensor.columns} inputs of {name}")


def _check_heads(header: RawHeader) -> None:
    names = ("group_count", "time_step_rank", "inner_size")
    parts = [header.metadata.get(f"{ARCHITECTURE}.ssm.{name}") for name in names]
    groups, heads, inner = (part if isinstance(part, int) else 0 for part in parts)
    if min(groups, heads, inner) < 1 or heads % groups or inner % heads:
        raise Unsound(f"{ARCHITECTURE}.ssm.{', '.join(names)} are {parts}, expected a multiple each of the one before")
    for name, tensor in header.tensors.items():
        if name.endswith(".ssm_out.weight") and tensor.columns != inner:
            raise Unsound(f"{name} has {tensor.columns} inputs, expected {ARCHITECTURE}.ssm.inner_size {inner}")
