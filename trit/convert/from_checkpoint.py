# SPDX-License-Identifier: MIT
"""The conversion itself: plan every tensor, stream them through, read the file back, give it its name."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import yaml  # type: ignore[import-untyped]
from tqdm import tqdm

from trit.base.errors import UserError
from trit.base.files import atomic_outputs
from trit.convert import vocabulary_check
from trit.convert.embedding import check_values, embedding_row, quantize_pieces
from trit.convert.manifest import Manifest
from trit.convert.matrices import check_columns, fallback_notes, matrix_rows, rounding_notes, write_matrix, write_stack
from trit.convert.pooling import read_pooling
from trit.convert.read_back import Expected, verify, verify_vocabulary
from trit.convert.report import Report
from trit.convert.ternary import (
    PACKED,
    Declared,
    check_left_out,
    check_shape,
    check_stored,
    left_out_by,
    looks_ternary,
    read_ternary,
)
from trit.convert.tokenizer import Vocabulary, load_tokenizer
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.encodings import Encoding, Scale, Ternary
from trit.gguf.types import GGMLQuantizationType, GGUFWriter
from trit.gguf.writer import PlannedTensor, SplitWriter, output_errors, output_paths, split_tensors
from trit.models.checkpoint import Checkpoint, StoredTensor, readable, short_list
from trit.models.families import find_family
from trit.models.families.base import Family, Kind, TensorSpec
from trit.models.families.rope import pair_rows
from trit.models.json_files import CONFIG, read_json_if_there
from trit.models.names import quantised_by

# general.quantization_version of llama.cpp's present block formats.
QUANTIZATION_VERSION = 2
# Stored by older savers, though they follow from the configuration.
HEAD = "lm_head.weight"
# Types of floats that both kinds of files have.
KEPT_TYPES = ("F16", "BF16", "F32")
NOT_WANTED = ".rotary_emb.inv_freq"
_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
# Keys of generation_config.json -> fields of gguf-py's metadata.
SAMPLING = {
    **{key: f"sampling_{key}" for key in ("sequence", "top_k", "top_p", "min_p", "xtc_probability", "xtc_threshold")},
    **{key: f"sampling_{key}" for key in ("mirostat", "mirostat_tau", "mirostat_eta")},
    "temperature": "sampling_temp",
    "penalty_last_n": "sampling_penalty_last_n",
    "penalty_repeat": "sampling_penalty_repeat",
}
TAKE_CONFIG = "take the config.json that was saved with these weights"


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        encoding: Of the ternary matrices.
        embedding_type: Of embedding and head; None for the default, which depends on encoding and model.
        master_weights: Ternarise floats though the checkpoint does not declare them master weights.
        name: ``general.name`` of the file.
        source: ORG/NAME[@REVISION] of the checkpoint.
        split_bytes: Most bytes of tensor data per file; None for one file of any size.
        force: Replace files that exist.
    """

    encoding: Encoding
    embedding_type: str | None
    master_weights: bool = False
    name: str | None = None
    source: str | None = None
    split_bytes: int | None = None
    force: bool = True


def convert(directory: Path, outfile: Path, options: Options, progress: bool = True) -> Report:
    """Convert a checkpoint folder to one GGUF file, or to several where ``options.split_bytes`` asks for it.

    Everything that can be known from headers is checked before the first byte is written. Memory: one matrix at a time,
    about its stored bytes plus one byte per weight plus its packed bytes; embeddings go through by a few rows.

    Raises:
        UserError: the checkpoint is missing something, is broken, or is not ternary; names the file or tensor.
        TritError: the file cannot be written, or reads back differently.
    """
    checkpoint = Checkpoint.open(directory)
    with readable(directory):
        family = find_family(checkpoint.config)
        specs = present(checkpoint, family, options.master_weights)
        embedding_type = options.embedding_type or _default_embedding(specs, options.encoding)
        input_norms = any(spec.kind is Kind.INPUT_NORM for spec in specs)
        declared = Declared.from_config(checkpoint.config, options.master_weights or input_norms)
        ternary = [name for spec in specs if spec.kind is Kind.TERNARY for name in spec.sources]
        check_left_out(checkpoint.config, [*ternary, *map(checkpoint.stored_name, ternary)])
        pooling = read_pooling(directory, checkpoint.config)
        # A writer without a file: a hyper-parameter of the wrong type or size must not show only when all is written.
        family.write_hyperparameters(GGUFWriter(None, family.gguf_architecture(checkpoint.config)), checkpoint.config)
        check_names(checkpoint, family, specs)
        matrices = {spec.target: spec.shape for spec in specs if spec.kind is Kind.TERNARY}
        check_columns(matrices, options.encoding, family.gguf_architecture(checkpoint.config))
        planned = [_plan(spec, checkpoint, options.encoding, embedding_type) for spec in specs]
        computed = family.computed(checkpoint.config)
        vocabulary = load_tokenizer(directory, checkpoint.config, _vocab_size(specs), embeds=pooling is not None)
        card = model_card(checkpoint, options.name)
        rehearse(checkpoint, family, vocabulary, card)
    rows = [tensor for tensors in planned for tensor in tensors]
    rows += [PlannedTensor(name, values.shape, GGMLQuantizationType.F32) for name, values in computed.items()]
    parts = split_tensors(rows, options.split_bytes)
    paths = output_paths(outfile, len(parts), options.force)
    architecture = family.gguf_architecture(checkpoint.config)

    def write_metadata(writer: GGUFWriter) -> None:
        _write_metadata(writer, checkpoint, family, vocabulary, card, options.encoding.file_type)

    with output_errors(outfile, rows), atomic_outputs(paths) as partials:
        checked = vocabulary_check.check(directory, vocabulary, architecture, write_metadata, partials[0])
        manifest = Manifest.of(directory, checkpoint.files, options.source, progress)
        writer = SplitWriter(partials, architecture, parts)
        try:
            write_metadata(writer.metadata)
            if pooling is not None:
                writer.metadata.add_pooling_type(pooling)
            manifest.write(writer.metadata, options.encoding.name, embedding_type)
            written = _write_tensors(writer, checkpoint, specs, planned, declared, options, progress)
            expected, kinds, scale_notes = written
            expected += [Expected(row, writer.write([computed[row.name]])) for row in rows[len(rows) - len(computed) :]]
        finally:
            writer.close()
        verified = verify(partials, expected)
        verify_vocabulary(partials[0], checked.keys)
    notes = (
        checkpoint.notes + left_out_notes(checkpoint, family) + fallback_notes(matrices, options.encoding) + scale_notes
    )
    notes += vocabulary.notes + checked.notes
    names = [file.name for file in checkpoint.files]
    return Report(paths, names, embedding_type, kinds, notes, f"{verified}; {checked.verified}", checked.warnings)


def _default_embedding(specs: list[TensorSpec], encoding: Encoding) -> str:
    """The type of embedding and head that suits the model's hidden size."""
    columns = next(spec.shape[1] for spec in specs if spec.kind is Kind.EMBEDDING)
    return default_embedding_type(encoding.name, columns)


def _vocab_size(specs: list[TensorSpec]) -> int:
    """Rows of the embedding, which is how many tokens the vocabulary has to have."""
    return next(spec.shape[0] for spec in specs if spec.kind is Kind.EMBEDDING)


def present(checkpoint: Checkpoint, family: Family, master: bool = False) -> list[TensorSpec]:
    """The family's tensors, without the norms of the projections' inputs if the checkpoint has none of them.

    Those that may be ternary or not are one or the other.

    Args:
        checkpoint: The folder.
        family: Its family.
        master: Floats are master weights, whatever config.json says.

    Raises:
        UserError: sizes do not fit each other; says which of them config.json leaves out.
    """
    try:
        specs = family.tensors(checkpoint.config)
    except UserError as error:
        if checkpoint.asks == CONFIG:
            raise
        raise UserError(f"{error}; read as {checkpoint.asks}") from None
    specs = [_decided(spec, checkpoint, master) for spec in specs]
    norms = [spec for spec in specs if spec.kind is Kind.INPUT_NORM]
    if any(spec.source in checkpoint.tensors for spec in norms):
        return specs
    return [spec for spec in specs if spec.kind is not Kind.INPUT_NORM]


def _decided(spec: TensorSpec, checkpoint: Checkpoint, master: bool) -> TensorSpec:
    """A matrix that may be ternary as what it is; other tensors as they are."""
    if spec.kind is not Kind.EITHER or spec.source not in checkpoint.tensors:
        return spec
    stored = checkpoint.tensors[spec.source]
    left_out = any(left_out_by(checkpoint.config, name) for name in (spec.source, stored.name))
    declared = Declared.from_config(checkpoint.config, master).master
    if not left_out and (declared or looks_ternary(stored, spec.shape)):
        return replace(spec, kind=Kind.TERNARY)
    return replace(spec, kind=Kind.FLOAT, float_type=stored.dtype if stored.dtype in KEPT_TYPES else "F32")


def left_out_notes(checkpoint: Checkpoint, family: Family) -> list[str]:
    """Which of the checkpoint's tensors the file has not, a clause for each reason."""
    reasons = (family.left_out(name, checkpoint.config) for name in checkpoint.tensors)
    return list(dict.fromkeys(reason for reason in reasons if reason))


def check_names(checkpoint: Checkpoint, family: Family, specs: list[TensorSpec]) -> None:
    """Every tensor that the family wants is there, every one that is there is wanted, and they are of one kind.

    Raises:
        UserError: names the first missing or unexpected tensors, as their file has them or would have them.
    """
    where = checkpoint.directory
    wanted = {name for spec in specs for name in spec.sources}
    ternary = [name for spec in specs if spec.kind is Kind.TERNARY for name in spec.sources]
    missing = {name for name in wanted if name not in checkpoint.tensors}
    copies = family.copies(checkpoint.config)
    known = wanted | {f"{name}_scale" for name in ternary} | set(copies)
    unexpected = [name for name in checkpoint.tensors if name not in known and not name.endswith(NOT_WANTED)]
    unexpected = [name for name in unexpected if family.left_out(name, checkpoint.config) is None]
    _check_quantised(checkpoint, unexpected)
    _check_layers(checkpoint, wanted)
    if missing:
        named = short_list(map(checkpoint.stored_name, missing))
        if all(spec.kind is Kind.NORM for spec in specs if not missing.isdisjoint(spec.sources)):
            raise UserError(
                f"{where}: {named} missing, norms that config.json asks for; the checkpoint is not whole, or "
                f"{TAKE_CONFIG}"
            )
        hint = ""
        if HEAD in missing:
            hint = f", or tie_word_embeddings is to be true in {checkpoint.asks}"
        raise UserError(f"{where}: {named} missing; the checkpoint is not whole{hint}")
    if unexpected:
        named = short_list(map(checkpoint.stored_name, unexpected))
        if all(is_norm(name) for name in unexpected):
            raise UserError(
                f"{where}: unexpected tensor {named}, of norms that config.json turns off or does not name; "
                f"{TAKE_CONFIG}"
            )
        raise UserError(f"{where}: unexpected tensor {named}; this model is of another kind")
    kinds = {checkpoint.tensors[name].dtype == PACKED: checkpoint.tensors[name].name for name in ternary}
    if len(kinds) > 1:
        raise UserError(
            f"{where}: {kinds[True]} is packed and {kinds[False]} is not, so these are the weights of two checkpoints; "
            "take all from one"
        )
    for copy, original in copies.items():
        if copy in checkpoint.tensors and not _equal(checkpoint.tensors[copy], checkpoint.tensors[original]):
            both = f"{checkpoint.stored_name(copy)}: differs from {checkpoint.stored_name(original)}"
            raise UserError(f"{both}, yet config.json ties them (tie_word_embeddings)")


def _check_quantised(checkpoint: Checkpoint, unexpected: list[str]) -> None:
    """Refuse tensors that another quantisation has left, where config.json does not say so."""
    for name in unexpected:
        if method := quantised_by(name):
            raise UserError(
                f"{checkpoint.directory}: {checkpoint.stored_name(name)} is a tensor of {method}, whose weights are "
                "not ternary; convert the model from before that step"
            )


def _check_layers(checkpoint: Checkpoint, wanted: set[str]) -> None:
    """Refuse a number of layers that is not the configuration's: by the layer, not by its dozen tensors."""
    asked, there = _layers(wanted), _layers(checkpoint.tensors)
    said = f"num_hidden_layers is {len(asked)} in {checkpoint.asks}"
    lost, more = sorted(asked - there), sorted(there - asked)
    if not lost and not more:
        return
    name = checkpoint.stored_name(f"model.layers.{(lost or more)[0]}.")
    what, advice = ("has no layer", "the checkpoint is not whole") if lost else ("also has layer", TAKE_CONFIG)
    raise UserError(f"{checkpoint.directory}: {what} {_numbers(lost or more)} ({name}*), but {said}; {advice}")


def _layers(names: Iterable[str]) -> set[int]:
    """Numbers of the layers that tensors of these names belong to."""
    return {int(found[1]) for found in map(_LAYER.match, names) if found}


def _numbers(layers: list[int]) -> str:
    shown = ", ".join(map(str, layers[:3]))
    return shown if len(layers) <= 3 else f"{shown} and {len(layers) - 3} more"


def is_norm(name: str) -> bool:
    """Whether a tensor is the weight of a norm, by what trainers call them."""
    module = name.removesuffix(".weight").rpartition(".")[2]
    return "norm" in module or module.endswith("_ln")


def _equal(a: StoredTensor, b: StoredTensor) -> bool:
    return a.shape == b.shape and all(np.array_equal(x, y) for x, y in zip(a.floats(), b.floats(), strict=True))


def _plan(spec: TensorSpec, checkpoint: Checkpoint, asked: Encoding, embedding_type: str) -> list[PlannedTensor]:
    """The tensor's row in the file, and that of its scale where it has one; raises UserError if its shape is wrong."""
    if spec.kind is Kind.TERNARY:
        n, k = spec.shape[-2:]
        for name in spec.sources:
            check_stored(checkpoint.tensors[name], checkpoint.tensors.get(f"{name}_scale"), (n, k), checkpoint.asks)
    else:
        check_shape(checkpoint.tensors[spec.source], spec.stored_shape, checkpoint.asks)
    return planned_rows(spec, asked, embedding_type)


def planned_rows(spec: TensorSpec, asked: Encoding, embedding_type: str) -> list[PlannedTensor]:
    """What a tensor becomes in the file, whatever the checkpoint holds; raises UserError if it does not fit."""
    if spec.kind is Kind.TERNARY:
        return matrix_rows(spec.target, spec.shape, asked)
    if spec.kind is Kind.EMBEDDING:
        return [embedding_row(spec.target, spec.shape, embedding_type)]
    if spec.kind is Kind.FLOAT:
        return [PlannedTensor(spec.target, spec.shape, GGMLQuantizationType[spec.float_type])]
    return [PlannedTensor(spec.target, spec.shape, GGMLQuantizationType.F32)]


def model_card(checkpoint: Checkpoint, name: str | None = None) -> gguf.Metadata:
    """Name, licence, ... of the model, from the model card and the folder's name."""
    folder, path = checkpoint.directory, checkpoint.directory / "README.md"
    total = sum(tensor.size for tensor in checkpoint.tensors.values())
    try:
        top = gguf.Metadata.load_model_card(folder)
        card = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), top, checkpoint.config, folder, total)
        # What cannot be written shows here, where its file is known.
        _to_nowhere("llama", card.set_gguf_meta_model)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the YAML at its top is broken ({reason})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8, or take it away") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{path}: a value in the YAML at its top is none that a model card has ({reason}); mend it, or take the "
            "file away"
        ) from None
    generation = read_json_if_there(folder / "generation_config.json")
    for key, field in SAMPLING.items():
        setattr(card, field, generation.get(key))
    card.name = name or card.name or folder.resolve().name.encode("utf-8", "replace").decode("utf-8")
    card.quantized_by = "trit.cpp"
    return card


def rehearse(checkpoint: Checkpoint, family: Family, vocabulary: Vocabulary, card: gguf.Metadata) -> None:
    """Write all metadata to nowhere; raises whatever a value raises that no GGUF key can hold."""
    architecture = family.gguf_architecture(checkpoint.config)
    _to_nowhere(architecture, lambda writer: _write_metadata(writer, checkpoint, family, vocabulary, card, 0))


def _to_nowhere(architecture: str, write: Callable[[GGUFWriter], object]) -> None:
    writer = GGUFWriter(os.devnull, architecture)
    try:
        write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
    finally:
        writer.close()


def _write_metadata(
    writer: GGUFWriter,
    checkpoint: Checkpoint,
    family: Family,
    vocabulary: Vocabulary,
    card: gguf.Metadata,
    file_type: int,
) -> None:
    """General keys, hyper-parameters, tokenizer."""
    writer.add_type("model")
    card.set_gguf_meta_model(writer)
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    family.write_hyperparameters(writer, checkpoint.config)
    vocabulary.write(writer)


def _write_tensors(
    writer: SplitWriter,
    checkpoint: Checkpoint,
    specs: list[TensorSpec],
    planned: list[list[PlannedTensor]],
    declared: Declared,
    options: Options,
    progress: bool,
) -> tuple[list[Expected], dict[str, int], list[str]]:
    """Stream every tensor into the file; returns what to expect when reading back, how many of which kind, notes."""
    writer.begin()
    expected: list[Expected] = []
    kinds: dict[str, int] = {}
    deviation = 0.0
    total = sum(row.nbytes for rows in planned for row in rows)
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None if progress else True) as bar:
        for spec, rows in zip(specs, planned, strict=True):
            stored, tensor = checkpoint.tensors[spec.source], rows[0]
            if spec.kind is Kind.TERNARY:
                matrices = _matrices(checkpoint, spec, declared, kinds)
                if spec.others:
                    written, rounded = write_stack(writer, tensor, options.encoding, matrices)
                else:
                    written, rounded = write_matrix(writer, rows, options.encoding, *next(matrices))
                expected += written
                deviation = max(deviation, rounded)
            else:
                kind_in_file = GGMLQuantizationType(tensor.ggml_type)
                pieces = quantize_pieces(_float_pieces(stored, spec, kind_in_file), kind_in_file)
                expected.append(Expected(tensor, writer.write(pieces)))
            bar.update(tensor.nbytes)
    return expected, kinds, rounding_notes(deviation)


def _matrices(
    checkpoint: Checkpoint, spec: TensorSpec, declared: Declared, kinds: dict[str, int]
) -> Iterator[tuple[Ternary, Scale]]:
    """The matrices of a tensor, one after the other, and their scales; ``kinds`` counts how they were stored."""
    for name in spec.sources:
        scale_tensor = checkpoint.tensors.get(f"{name}_scale")
        ternary, scale, kind = read_ternary(checkpoint.tensors[name], scale_tensor, declared)
        kinds[kind] = kinds.get(kind, 0) + 1
        yield _reordered(spec, ternary, scale)


def _float_pieces(
    stored: StoredTensor, spec: TensorSpec, kind: GGMLQuantizationType
) -> Iterator[npt.NDArray[np.float32]]:
    """The values of a float tensor, a few rows at a time.

    Raises:
        UserError: the type cannot hold a value; names the tensor.
    """
    columns = spec.shape[-1]
    # Heads that change places need the whole tensor at once; embeddings have none.
    for values in stored.floats(columns if spec.turns is None else stored.size):
        if spec.offset:
            values = values + np.float32(spec.offset)
        if spec.decays:
            values = -np.exp(values.astype(np.float64)).astype(np.float32)
        rows = pair_rows(values, spec.rope_heads)
        if spec.turns is not None:
            rows = rows.reshape(spec.shape)
            rows = rows.take(spec.turns.order(spec.shape[spec.turns.axis]), axis=spec.turns.axis)
        rows = rows.reshape(-1, columns)
        check_values(rows, kind, stored.name)
        yield rows


def _reordered(spec: TensorSpec, ternary: Ternary, scale: Scale) -> tuple[Ternary, Scale]:
    """A ternary matrix and its scale with rows or columns in the file's order."""
    ternary = pair_rows(ternary, spec.rope_heads)
    if isinstance(scale, np.ndarray):
        scale = pair_rows(scale, spec.rope_heads)
    if (turns := spec.turns) is None:
        return ternary, scale
    ternary = ternary.take(turns.order(spec.shape[turns.axis]), axis=turns.axis)
    if isinstance(scale, np.ndarray):
        if turns.axis == 1:  # heads that share a scale are taken apart
            group = spec.shape[1] // scale.shape[1]
            unit = math.gcd(group, turns.size)
            scale, turns = scale.repeat(group // unit, axis=1), replace(turns, size=turns.size // unit)
        scale = scale.take(turns.order(scale.shape[turns.axis]), axis=turns.axis)
    return ternary, scale
