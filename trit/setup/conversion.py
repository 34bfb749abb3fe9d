# SPDX-License-Identifier: MIT
"""A step: checkpoint to GGUF, beside it, by ``trit convert``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import BUNDLED_MODEL, ROOT, STAMPS, gguf_path, python_command
from trit.base.progress import StepLine
from trit.gguf.given import check_given, is_gguf
from trit.models.source_note import read_manifest
from trit.setup.context import AUTO, Setup, digest, files_digest, read_stamp, write_stamp
from trit.setup.model import given_gguf, shown
from trit.setup.tool import tool

NAME = "conversion"
DEED = "converting the model to GGUF"

_INPUTS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin*",
    "*token*",
    "chat_template*",
    "modules.json",
    "*_Pooling/config.json",
)
_CONVERTER = ("trit/convert/**/*.py", "trit/gguf/*.py", "trit/models/**/*.py")


def run(setup: Setup, line: StepLine) -> str:
    """Convert unless the model is a GGUF that loads, or the one there was made from the same inputs in the same way."""
    folder, outtype = setup.model_dir, setup.quant_type
    assert folder is not None and outtype is not None
    given = given_gguf(setup)
    source = read_manifest(folder)
    origin = ["--source", f"{source.repo}@{source.commit}"] if source else []
    if given is None:
        inputs = sorted({path for pattern in _INPUTS for path in folder.glob(pattern)})
        return _convert(setup, line, Job(folder, inputs, outtype, origin))
    if foreign := check_given(given):
        # Where nobody asked for another type: the layout's own kin keeps its scales.
        kin = setup.options.quant_type in (AUTO, "i2_s")
        return _convert(setup, line, Job(given, [given], foreign if kin else outtype, origin))
    setup.gguf = given
    return f"{shown(given)} is given, nothing to convert"


@dataclass(frozen=True)
class Job:
    """A conversion.

    Attributes:
        source: checkpoint folder or GGUF file.
        inputs: the files that it is made from.
        outtype: encoding of the ternary matrices.
        origin: the converter's flags that say where the checkpoint came from.
    """

    source: Path
    inputs: list[Path]
    outtype: str
    origin: list[str]


def _convert(setup: Setup, line: StepLine, job: Job) -> str:
    folder, options = setup.model_dir, setup.options
    assert folder is not None
    gguf = setup.gguf = gguf_path(folder, job.outtype)
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in job.inputs]
    sources = files_digest(path for pattern in _CONVERTER for path in ROOT.glob(pattern))
    key = digest(job.outtype, options.quant_embd, sources, *stats)
    # As seen from the checkout, which may be moved.
    stamp_file = STAMPS / f"gguf-{digest(shown(gguf))}.json"
    stamp = read_stamp(stamp_file)
    if gguf.is_file() and _is_good(gguf, job.inputs, stamp, key, options.quant_embd):
        return f"up to date: {shown(gguf)} ({gguf.stat().st_size / 1e6:.1f} MB)"
    if gguf.is_file() and not stamp and folder != BUNDLED_MODEL:
        raise UserError(f"{gguf} was not made by set-up and is older than the model beside it; move it away")
    for leftover in folder.glob(f".{gguf.name}.*.partial"):
        leftover.unlink()
    arguments = [str(job.source), "--outfile", str(gguf), "--force", "--outtype", job.outtype, *job.origin]
    arguments += ["--quant-embd", options.quant_embd] if options.quant_embd else []
    converter = "trit.convert.command:for_setup"
    try:
        tool(setup, line, NAME, "conversion", converter, {"arguments": arguments}, {"--outtype": "-q"})
    except UserError as error:
        if not error.flags:
            raise
        command = f"{python_command('-m utils.convert')} {shlex.quote(str(job.source))}"
        raise UserError(f"{error}; that is a flag of: {command}") from error
    write_stamp(stamp_file, {"key": key, "bytes": str(gguf.stat().st_size)})
    return f"{shown(gguf)} ({gguf.stat().st_size / 1e6:.1f} MB)"


def _is_good(gguf: Path, inputs: list[Path], stamp: dict[str, str], key: str, quant_embd: str | None) -> bool:
    """Whether a GGUF can stay; of one without a stamp, which is not ours, only the time can be judged."""
    if stamp:
        return stamp.get("key") == key and stamp.get("bytes") == str(gguf.stat().st_size)
    newest = max(path.stat().st_mtime for path in inputs)
    return quant_embd is None and gguf.stat().st_mtime > newest and is_gguf(gguf)
