# SPDX-License-Identifier: MIT
"""Damage to files that knows where their fields are: counts, lengths, types, dimensions, offsets, alignment.

Blind byte flips mostly end at the first check. Here every field of a GGUF header and every value of a JSON text can get
one of the numbers that programs stumble over, besides flips, cuts, repeats and splices. Standard library only.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

# Sizes of GGUF's scalar value types; 8 is a string, 9 an array.
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
NUMBERS = (0, 1, 2, 3, 7, 31, 32, 33, 64, 127, 128, 255, 256, 4096, 65535, 65536, 2**20, 2**24, 2**30)
NUMBERS += (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)
TYPES = (0, 1, 2, 8, 12, 13, 14, 30, 34, 35, 36, 37, 38, 42, 43, 99, 142, 2**31 - 1, 2**32 - 1)


@dataclass(frozen=True)
class Field:
    """A fixed-size number in a file: where, how many bytes, what it says."""

    offset: int
    size: int
    role: str


@lru_cache(16)
def gguf_fields(data: bytes) -> list[Field]:
    """Every number of a valid little-endian GGUF header."""
    fields: list[Field] = []
    position = 4

    def number(size: int, role: str) -> int:
        nonlocal position
        fields.append(Field(position, size, role))
        value = int.from_bytes(data[position : position + size], "little")
        position += size
        return value

    def string() -> None:
        nonlocal position
        length = number(8, "length")
        position += length

    def value(kind: int) -> None:
        if kind == STRING:
            string()
        elif kind == ARRAY:
            element, count = number(4, "value type"), number(8, "count")
            for _ in range(count):
                value(element)
        else:
            number(SCALAR_BYTES[kind], "value")

    number(4, "version")
    tensors, keys = number(8, "count"), number(8, "count")
    for _ in range(keys):
        string()
        value(number(4, "value type"))
    for _ in range(tensors):
        string()
        for _ in range(number(4, "dimensions")):
            number(8, "dimension")
        number(4, "tensor type")
        number(8, "offset")
    return fields


def mutate_gguf(data: bytes, rng: Random) -> bytes:
    """One to four changes to a valid file, most of them to its numbers."""
    out = bytearray(data)
    fields = gguf_fields(data)
    # A few numbers stand for many: the loader's interest is not spread evenly over a vocabulary.
    by_role: dict[str, list[Field]] = {}
    for field in fields:
        by_role.setdefault(field.role, []).append(field)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if rng.random() < 0.25:
            out = damage(out, rng)
            continue
        field = rng.choice(by_role[rng.choice(list(by_role))])
        _set(out, field, rng)
    return bytes(out)


def _set(out: bytearray, field: Field, rng: Random) -> None:
    end = field.offset + field.size
    if end > len(out):
        return
    old = int.from_bytes(out[field.offset : end], "little")
    choices = TYPES if field.role == "tensor type" else tuple(range(15)) if field.role == "value type" else NUMBERS
    near = (old + 1, old - 1, old * 2, old // 2, old + 32, old ^ 1 << rng.randrange(8 * field.size))
    value = rng.choice(choices if rng.random() < 0.6 else near)
    out[field.offset : end] = (value % 256**field.size).to_bytes(field.size, "little")


def damage(data: bytearray, rng: Random) -> bytearray:
    """Flips, cuts, repeats, gaps: what broken disks and downloads do."""
    if not data:
        return data
    kind, at = rng.randrange(6), rng.randrange(len(data))
    length = min(rng.choice((1, 1, 4, 8, 32, 256)), len(data) - at)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + length] = rng.randbytes(length)
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = data[at : at + length]
    else:
        data[at : at + length] = rng.choice((b"\x00", b"\xff")) * length
    return data


STRAY: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    0,
    -1,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
)
STRAY += (
    *NUMBERS,
    10**30,
    "F32",
    "BF16",
    "U8",
    "F8_E4M3",
    "I64",
    "../../x",
    "/etc/passwd",
    "a\x00b",
    "relu2",
    "bitnet",
)


def mutate_json(text: bytes, rng: Random) -> bytes:
    """One to three changes to a JSON object: values, keys, nesting; sometimes to its bytes."""
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(tree, rng)
    out = bytearray(json.dumps(tree).encode())
    roll = rng.random()
    if roll < 0.1:
        out = damage(out, rng)
    elif roll < 0.12:
        depth = rng.choice((10, 1000, 100_000))
        out = bytearray(b'{"a":' + b"[" * depth + b"]" * depth + b"}")
    elif roll < 0.14:
        at = out.find(b"{") + 1
        out[at:at] = b'"hidden_size": ' + b"9" * rng.choice((20, 5000)) + b", "
    return bytes(out)


def _change(tree: Any, rng: Random) -> None:
    """Replace, remove, rename or copy one entry somewhere in the tree."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = (
            list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
        )
        for key, child in items:
            places.append((node, key))
            walk(child)

    walk(tree)
    if not places:
        return
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0 and isinstance(node, dict):
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[rng.choice(("__metadata__", key + "_scale", "", "a" * 1000, key[:-1]))] = node.pop(key)
    elif kind == 2:
        other, other_key = rng.choice(places)
        node[key] = json.loads(json.dumps(other.get(other_key) if isinstance(other, dict) else None))
    elif kind == 3 and isinstance(node[key], int):
        node[key] += rng.choice((-1, 1, 4, -4, 64, 2**31, 2**53, 2**63))
    else:
        node[key] = rng.choice(STRAY)


def mutate_safetensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with changes to its length field, its JSON header, or its bytes."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    roll = rng.random()
    if roll < 0.7:
        header = mutate_json(header, rng)
        size = len(header)
        if rng.random() < 0.15:
            size = rng.choice((*NUMBERS, size + 1, size - 1, size + len(rest)))
        return struct.pack("<Q", size % 2**64) + header + rest
    if roll < 0.8:
        return struct.pack("<Q", rng.choice(NUMBERS) % 2**64) + data[8:]
    return bytes(damage(bytearray(data), rng))
