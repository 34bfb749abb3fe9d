# SPDX-License-Identifier: MIT
"""Read a Hugging Face checkpoint folder: config.json and the tensors of one or many safetensors or ``.bin`` files.

The safetensors package checks each file (header, offsets, length). It cannot give bfloat16 to numpy, so the bytes are
read here, by rows, from the offsets in the header. Nothing is memory-mapped: mapped pages would count as peak memory.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from trit.base.errors import TritError, UserError
from trit.base.files import check_input, stays_inside
from trit.models.families.defaults import complete
from trit.models.json_files import CONFIG, MAX_JSON_BYTES, most_bytes, read_json
from trit.models.names import name_notes, plain_name, quantised_by, refuse_adapter, refuse_other_methods
from trit.models.torch_file import torch_tensors

Floats = npt.NDArray[np.float32]

# numpy's dtypes of the stored values; numpy has no bfloat16, so it is read as the upper half of a float32.
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "U8": "|u1"}
# What a folder may have, in transformers' order (modeling_utils.py): the first that is there counts. An index names
# the files that a model is shared out to.
INDEX = ".index.json"
WEIGHTS = tuple(f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", INDEX))
NO_WEIGHTS = "no weights"
WEIGHT_SUFFIXES = {".bin", ".safetensors", ".pt", ".pth", ".gguf"}
# Everything else of a folder that a reader may open, ours or a package's.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
)
# Values that are converted to float32 at once.
CHUNK_VALUES = 1 << 20


@contextmanager
def readable(directory: Path) -> Iterator[None]:
    """The one place where what readers of a folder raise becomes a sentence: theirs, gguf-py's, the parsers'.

    Raises:
        UserError: in place of everything that is no error of ours already; names the folder.
    """
    try:
        yield
    except TritError:
        raise
    except BaseException as error:  # broken files may raise anything, endless nesting and numbers included
        # What a panic of the tokenizers package becomes is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{directory}: a value in config.json, tokenizer.json or a file beside them has not the type or form it "
            f"must have ({reason}); compare the files with the model's original"
        ) from error


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: file, byte offset of its data, dtype as safetensors names it, shape."""

    name: str
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The stored values [start:stop] of the flattened tensor, bfloat16 as uint16 bit patterns.

        Raises:
            UserError: the file is shorter than its header said when it was opened.
        """
        dtype = np.dtype(STORED[self.dtype])
        values = np.fromfile(self.path, dtype=dtype, count=stop - start, offset=self.offset + start * dtype.itemsize)
        if values.size != stop - start:
            raise UserError(f"{self.path}: ends inside {self.name}; download the file again")
        return values

    def floats(self, row: int = 1) -> Iterator[Floats]:
        """The values as flat float32 pieces of about ``CHUNK_VALUES``, each a multiple of ``row`` long.

        Raises:
            UserError: the tensor is not floating point, or holds NaN or infinity; names the tensor.
        """
        if self.dtype == "U8":
            raise UserError(f"{self.name}: expected floating-point values, found {self.dtype}")
        step = max(CHUNK_VALUES // row, 1) * row
        for start in range(0, self.size, step):
            values = self.read(start, min(start + step, self.size))
            if self.dtype == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            values = values.astype(np.float32, copy=False)
            if not np.isfinite(values).all():
                raise UserError(f"{self.name}: holds NaN or infinity in {self.path.name}; the checkpoint is broken")
            yield values


def check_side_files(directory: Path) -> None:
    """Refuse what is no file in the place of one that a reader may open: not all of them are ours.

    Raises:
        UserError: names the file and what it is.
    """
    for name in SIDE_FILES:
        if os.path.lexists(directory / name):
            check_input(directory / name, most_bytes(name))
    if os.path.lexists(directory / "README.md"):
        check_input(directory / "README.md", MAX_JSON_BYTES, content=False)


def is_plain_file_name(name: object) -> bool:
    """Whether it names a file of the folder itself."""
    return stays_inside(name) and "/" not in str(name)


def shard_names(index: Path) -> dict[str, str]:
    """The weight_map of an index: name of a tensor -> name of the file beside the index that holds it.

    Raises:
        UserError: it cannot be read, has none, or names what is not in its folder.
    """
    weight_map = read_json(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise UserError(f"{index}: has no weight_map of file names; download the file again")
    for file in weight_map.values():
        if not is_plain_file_name(file):
            raise UserError(
                f"{index}: weight_map names {file[:60]!r}, expected the name of a file beside it; download the "
                "file again"
            )
    return weight_map


def weight_files(directory: Path, config: Mapping[str, Any]) -> tuple[str, list[str], dict[str, str]]:
    """Which files hold a folder's weights, by transformers' order.

    Args:
        directory: The folder.
        config: Its config.json, whose transformers_weights may name the file or index.

    Returns:
        The file or index that decides; the names of the files; the index's names of tensors, empty without one.

    Raises:
        UserError: there are no weights, or the index names files that are not there.
    """
    named = config.get("transformers_weights")
    if named is not None and not is_plain_file_name(named):
        raise UserError(
            f"{directory / 'config.json'}: transformers_weights is {str(named)[:60]!r}, expected a file name"
        )
    names = WEIGHTS if named is None else (named,)
    first = next((name for name in names if os.path.lexists(directory / name)), None)
    if first is None:
        expected = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
        found = _weights_in(directory)
        way_out = "download the weights, too"
        if ".gguf" in found:
            way_out = "name the GGUF file itself"
        elif found != NO_WEIGHTS:
            way_out = "save the model with transformers (save_pretrained) and convert what that saves"
        raise UserError(f"{directory}: has no {expected} (found {found}); {way_out}")
    if not first.endswith(INDEX):
        return first, [first], {}
    weight_map = shard_names(directory / first)
    files = sorted(set(weight_map.values()))
    gone = [file for file in files if not os.path.lexists(directory / file)]
    if gone:
        more = f" and {len(gone) - 1} more files" if len(gone) > 1 else ""
        raise UserError(
            f"{directory}: {gone[0]}{more} is missing, which {first} names (found {_weights_in(directory)}); download "
            f"the checkpoint again, or take {first} away if it is of other weights"
        )
    return first, files, weight_map


def _weights_in(directory: Path) -> str:
    found = sorted(path.name for path in directory.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    return short_list(found) if found else NO_WEIGHTS


def short_list(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    names = sorted(names)
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _open_file(path: Path) -> Iterator[StoredTensor]:
    """The tensors of one safetensors or ``.bin`` file.

    Raises:
        UserError: something else is in the file's place, or it is truncated, corrupt, or holds a tensor type that no
            BitNet checkpoint has.
    """
    check_input(path)
    if path.suffix == ".bin":
        for name, offset, dtype, shape in torch_tensors(path):
            yield StoredTensor(name, path, offset, dtype, shape)
        return
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if header_bytes > MAX_JSON_BYTES:
                raise ValueError(f"its header would have {header_bytes:,} bytes")
            with safe_open(path, framework="numpy"):  # the package's own checks: header, overlaps, length of the file
                pass
            header = json.loads(file.read(header_bytes))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from None
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in STORED:
            by = f" by {method}, whose weights are not ternary" if (method := quantised_by(name)) else ""
            raise UserError(
                f"{name}: stored as {entry['dtype']} in {path.name}{by}; expected one of {', '.join(STORED)}"
            )
        offset = 8 + header_bytes + entry["data_offsets"][0]
        yield StoredTensor(name, path, offset, entry["dtype"], tuple(entry["shape"]))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder: its config.json and every tensor of its files.

    Attributes:
        directory: The folder.
        config: config.json, with transformers' defaults for what it leaves out.
        asks: Who asks for the sizes in it, for messages.
        tensors: By the names that transformers' models give them: without what wrappers put into names
            (``trit.models.names``). A tensor's own name is the one in its file.
        files: The files that were read.
        notes: What was chosen, a clause each.
    """

    directory: Path
    config: dict[str, Any]
    asks: str
    tensors: dict[str, StoredTensor]
    files: list[Path]
    notes: list[str]

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read the configuration and the tensor tables, no tensor data.

        Raises:
            UserError: something is missing or broken; names the file.
        """
        with readable(directory):
            return cls._open(directory)

    @classmethod
    def _open(cls, directory: Path) -> Checkpoint:
        if not directory.is_dir():
            raise UserError(f"{directory}: not a folder; expected a Hugging Face checkpoint folder")
        check_side_files(directory)
        refuse_adapter(directory)
        if not os.path.lexists(directory / CONFIG) and (ggufs := sorted(directory.glob("*.gguf"))):
            raise UserError(
                f"{directory}: has no {CONFIG}, it is a folder of GGUF files; name the file itself, {ggufs[0]}"
            )
        config, asks = complete(read_json(directory / "config.json"))
        refuse_other_methods(config)
        decides, files, weight_map = weight_files(directory, config)
        stored: dict[str, StoredTensor] = {}
        for file in files:
            for tensor in _open_file(directory / file):
                if tensor.name in stored:
                    raise UserError(f"{tensor.name}: is in both {stored[tensor.name].path.name} and {file}")
                stored[tensor.name] = tensor
        for name, file in weight_map.items():
            if name not in stored:
                raise UserError(f"{name}: the index says it is in {file}, but it is not; download the checkpoint again")
        layers = config.get("num_hidden_layers")
        # Also: no list of so many layers' tensors fits into memory.
        if isinstance(layers, int) and layers > len(stored):
            raise UserError(
                f"{directory}: num_hidden_layers is {reprlib.repr(layers)}, more than there are tensors "
                f"({len(stored)}), by {asks}; the checkpoint is not whole"
            )
        tensors: dict[str, StoredTensor] = {}
        for name, tensor in stored.items():
            plain = plain_name(name)
            if plain in tensors:
                raise UserError(
                    f"{directory}: {tensors[plain].name} and {name} are both {plain} without what wrappers put in "
                    "front; save the model without wrappers"
                )
            tensors[plain] = tensor
        others = [name for name in WEIGHTS if name != decides and os.path.lexists(directory / name)]
        notes = [f"weights are those of {decides}, as in transformers, not of {' or '.join(others)}"] if others else []
        notes += name_notes(stored)
        if config.get("rope_scaling") and config.get("rope_parameters"):
            notes.append("of config.json's rope_parameters and rope_scaling the latter counts, as in transformers")
        return cls(directory, config, asks, tensors, [directory / file for file in files], notes)

    def stored_name(self, plain: str) -> str:
        """A tensor's name in its file; of one that is not there as its neighbours are spelled."""
        if plain in self.tensors:
            return self.tensors[plain].name
        parts = plain.split(".")
        for count in range(len(parts) - 1, -1, -1):
            start = "".join(f"{part}." for part in parts[:count])
            for other, tensor in self.tensors.items():
                rest = other.removeprefix(start)
                if other.startswith(start) and tensor.name.endswith(rest):
                    return tensor.name[: len(tensor.name) - len(rest)] + plain.removeprefix(start)
        return plain
