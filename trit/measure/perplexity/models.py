# SPDX-License-Identifier: MIT
"""The files that are measured, and the same model with other types of its head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import python_command
from trit.engine.inference import check_model, is_embedding_model
from trit.gguf.encodings import ENCODINGS
from trit.gguf.parts import read_parts, whole_name
from trit.gguf.source import FLOATS
from trit.gguf.types import GGMLQuantizationType, GgufHeader, TensorEntry, block_of, read_header
from trit.measure.model_store import with_head

# What is compared if no types are named; the first is what the others are compared with.
SWEEP = ("f16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0")
_HEADS = ("output.weight", "token_embd.weight")
_DIGEST = "trit.source.sha256"


@dataclass(frozen=True)
class Model:
    """A GGUF file that can be measured.

    Attributes:
        path: Of the file; of the first where the model is split.
        header: With the tensors of all parts.
        nbytes: Size of all parts.
    """

    path: Path
    header: GgufHeader
    nbytes: int

    @classmethod
    def open(cls, path: Path) -> Model:
        """Read its header.

        Raises:
            UserError: the file is not there, is none, or holds a model that predicts no tokens.
        """
        check_model(path)
        if is_embedding_model(path):
            raise UserError(f"-m {path}: is an embedding model and predicts no tokens; trit verify proves it")
        parts = [part for part, _ in read_parts(path, arrays=False)]
        headers = [read_header(part) for part in parts]
        tensors = {name: entry for part in headers for name, entry in part.tensors.items()}
        header = GgufHeader(headers[0].metadata, headers[0].types, tensors)
        if header.metadata.get("tokenizer.ggml.add_eos_token"):
            raise UserError(f"-m {path}: its tokenizer ends every text with eos, which llama-perplexity does not take")
        if header.tensors.keys().isdisjoint(_HEADS) or "tokenizer.ggml.tokens" not in header.metadata:
            raise UserError(f"-m {path}: has no head or no vocabulary; convert its checkpoint again")
        return cls(path, header, sum(part.stat().st_size for part in parts))

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return len(self.header.metadata["tokenizer.ggml.tokens"])

    @property
    def head_tensor(self) -> TensorEntry:
        """Of the head, which is the embedding where they are tied."""
        return next(self.header.tensors[name] for name in _HEADS if name in self.header.tensors)

    @property
    def head(self) -> str:
        """The type of its head."""
        return _type_name(self.head_tensor.ggml_type)

    @property
    def matrices(self) -> str:
        """The type that most matrices of its layers have."""
        entries = [entry for name, entry in self.header.tensors.items() if name.startswith("blk.")]
        kinds = Counter(_type_name(entry.ggml_type) for entry in entries if len(entry.shape) > 1)
        return kinds.most_common(1)[0][0] if kinds else "none"


def with_heads(model: Model, types: Sequence[str], named: bool, folder: Path) -> list[Model]:
    """The model with each type of embedding and head, as files in a folder.

    Args:
        model: a ternary model whose head is float, or one that was made from the checkpoint in its folder.
        types: of embedding and head.
        named: whether the user has named them; if not, those that do not fit the hidden size are left out.
        folder: for the files.

    Raises:
        UserError: the file's head is quantised and its checkpoint is not beside it; a type does not fit.
    """
    if not named:
        types = [kind for kind in types if model.head_tensor.shape[-1] % block_of(kind) == 0]
    if model.matrices not in ENCODINGS:
        raise UserError(
            f"-m {model.path}: its matrices are {model.matrices}; heads are compared for ternary models only"
        )
    source = model.path if model.head in FLOATS else model.path.parent
    if source != model.path and not (source / "config.json").is_file():
        raise UserError(
            f"-m {model.path}: its head is {model.head}, so other types would have two errors, and its checkpoint is "
            "not beside it; make a file for -e from that: "
            f"{python_command('-m utils.convert')} CHECKPOINT --outtype {model.matrices} --quant-embd f16"
        )
    made = []
    for kind in types:
        outfile = folder / f"{whole_name(model.path)}-head-{kind}.gguf"
        with_head(source, model.matrices, kind, outfile)
        made.append(Model.open(outfile))
        if source != model.path and made[-1].header.metadata.get(_DIGEST) != model.header.metadata.get(_DIGEST):
            outfile.unlink()
            raise UserError(f"-m {model.path}: was not made from the checkpoint beside it; convert {source} again")
    return made


def _type_name(number: int) -> str:
    return GGMLQuantizationType(number).name.lower()
