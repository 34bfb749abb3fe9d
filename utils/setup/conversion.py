# SPDX-License-Identifier: MIT
"""Step 4: checkpoint to GGUF, beside it, by ``python -m utils.convert``."""

from __future__ import annotations

from pathlib import Path

from utils.cli import ROOT, CommandError, UserError
from utils.foreign.loadable import check_loadable
from utils.host import BUNDLED_MODEL, gguf_path
from utils.setup.context import STAMPS, Setup, digest, files_digest, read_stamp, write_stamp
from utils.setup.model import shown
from utils.setup.progress import StepLine

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
)
_CONVERTER = ("utils/convert/**/*.py", "utils/weight_encodings.py", "utils/gguf_types.py")


def run(setup: Setup, line: StepLine) -> str:
    """Convert unless the GGUF there was made from the same inputs by the same converter with the same options."""
    folder, options = setup.model_dir, setup.options
    assert folder is not None
    gguf = setup.gguf = gguf_path(folder, options.quant_type)
    if not (folder / "config.json").is_file():
        check_gguf(gguf)
        return f"{shown(gguf)} is given, nothing to convert"
    inputs = sorted({path for pattern in _INPUTS for path in folder.glob(pattern)})
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in inputs]
    converter = files_digest(path for pattern in _CONVERTER for path in ROOT.glob(pattern))
    key = digest(options.quant_type, options.quant_embd, converter, *stats)
    stamp_file = STAMPS / f"gguf-{digest(gguf.resolve())}.json"
    stamp = read_stamp(stamp_file)
    if gguf.is_file() and _is_good(gguf, inputs, stamp, key, options.quant_embd):
        return f"up to date: {shown(gguf)} ({gguf.stat().st_size / 1e6:.1f} MB)"
    if gguf.is_file() and not stamp and folder != BUNDLED_MODEL:
        raise UserError(f"{gguf} was not made by set-up and is older than the model beside it; move it away")
    for leftover in folder.glob(f".{gguf.name}.*.partial"):
        leftover.unlink()
    command: list[str | Path] = [setup.python, "-m", "utils.convert", folder, "--outfile", gguf, "--force"]
    command += ["--outtype", options.quant_type, *(["--quant-embd", options.quant_embd] if options.quant_embd else [])]
    command += ["--source", options.hf_repo] if options.hf_repo else []
    try:
        setup.run(command, "conversion", NAME, on_line=lambda text: line.update(text[-80:]))
    except CommandError as error:
        own = [text.removeprefix("error: ") for text in error.tail if text.startswith("error: ")]
        if own and error.returncode == UserError.exit_code:
            raise UserError(own[-1]) from error
        raise
    write_stamp(stamp_file, {"key": key, "bytes": str(gguf.stat().st_size)})
    return f"{shown(gguf)} ({gguf.stat().st_size / 1e6:.1f} MB)"


def _is_good(gguf: Path, inputs: list[Path], stamp: dict[str, str], key: str, quant_embd: str | None) -> bool:
    """Whether a GGUF can stay; of one without a stamp, which is not ours, only the time can be judged."""
    if stamp:
        return stamp.get("key") == key and stamp.get("bytes") == str(gguf.stat().st_size)
    newest = max(path.stat().st_mtime for path in inputs)
    return quant_embd is None and gguf.stat().st_mtime > newest and _magic(gguf) == b"GGUF"


def check_gguf(path: Path) -> None:
    """Refuse a file that is no GGUF, or one that the engine does not load.

    Raises:
        UserError: naming it.
    """
    if _magic(path) != b"GGUF":
        raise UserError(f"{path} is not a GGUF file; download or convert it again")
    check_loadable(path)


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
