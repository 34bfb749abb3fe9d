# SPDX-License-Identifier: MIT
"""Where things are: in a checkout, or installed from a wheel. Standard library only.

A wheel (trit/release) has a folder ``_bundle`` in the package: the files of a checkout that running needs, in the same
relative places. It is only read; what is written goes to :func:`home` then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trit.base.errors import UserError


def home() -> Path:
    """What belongs to no checkout: TRIT_HOME, else the user's cache; absolute, and not made by asking.

    Raises:
        UserError: this user has no home folder.
    """
    if given := os.environ.get("TRIT_HOME"):
        return Path(given).absolute()
    cache = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if cache and Path(cache).is_absolute() and sys.platform != "darwin":
        return Path(cache) / "trit"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "trit"
    except RuntimeError:
        raise UserError("this user has no home folder for models; name one in the variable TRIT_HOME") from None


def _state() -> Path:
    try:
        return home()
    except UserError:
        return ROOT  # nothing can be written: whoever tries says so


PACKAGE = Path(__file__).resolve().parents[1]
_BUNDLE = PACKAGE / "_bundle"
INSTALLED = _BUNDLE.is_dir()
ROOT = _BUNDLE if INSTALLED else PACKAGE.parent
STATE = _state() if INSTALLED else ROOT  # what is written
VENV = ROOT / ".venv"
ENGINE_DIR = ROOT / "3rdparty" / "llama.cpp"
CACHE_DIR = STATE / "3rdparty" / "cache"
STAMPS = CACHE_DIR / "stamps"
LOCK = ROOT / "3rdparty" / "llama.cpp.lock.json"
BUILD_DIR = STATE / "build"
ENGINE_BIN = ROOT / "build" / "bin"
MODELS_DIR = STATE / "models"
BUNDLED_MODEL = ROOT / "models" / "trit-story-3m"
LOGS = STATE / "logs"

DEMO_PROMPT = (
    "Daniel went back to the the the garden. Mary travelled to the kitchen. Sandra journeyed to the kitchen. "
    "Sandra went to the hallway. John went to the bedroom. Mary went back to the garden. Where is Mary?\\nAnswer:"
)


def gguf_path(model_dir: Path, quant_type: str = "i2_s") -> Path:
    """Where set-up puts the converted model of a folder; the name is bitnet.cpp's, people's scripts rely on it."""
    return model_dir / f"ggml-model-{quant_type}.gguf"


def engine_program(name: str, bin_dir: Path = ENGINE_BIN) -> Path:
    """Where a compiled program is or will be; absolute, since programs are started in another folder than ours."""
    return bin_dir.absolute() / (f"{name}.exe" if sys.platform == "win32" else name)


def engine_binary(name: str, bin_dir: Path = ENGINE_BIN) -> Path:
    """A compiled engine program, such as ``llama-completion``.

    Raises:
        UserError: the program is not there; names the command that builds it.
    """
    path = engine_program(name, bin_dir)
    if not path.is_file() and INSTALLED and bin_dir == ENGINE_BIN:
        raise UserError(f"the package is damaged ({path} is missing); install it again")
    if not path.is_file():
        raise UserError(f"the engine is not built ({path} is missing); build it with: {python_command('setup_env.py')}")
    return path


# What a checkout's user is told to run -> what does it for somebody who has a wheel. No sentence names either itself.
INSTEAD = {
    "run_inference.py": "trit run",
    "run_inference_server.py": "trit serve",
    "setup_env.py": "pip install --force-reinstall FILE.whl",
    "setup_env.py --clean": "pip install --force-reinstall FILE.whl",
    "setup_env.py -hr": "trit pull",
    "setup_env.py -md": "trit convert",
    "-m utils.convert": "trit convert",
    "-m trit.inspect": "trit inspect",
    "-m pip install -r requirements-train.txt": 'pip install "trit-cpp[train]"',
    "-m pip install -r requirements-parquet.txt": 'pip install "trit-cpp[parquet]"',
}


def python_command(script: str) -> str:
    """How this user does what one of our scripts does: by it, or with a wheel by a command.

    Args:
        script: a key of :data:`INSTEAD`; what is behind it stays the same.
    """
    if INSTALLED:
        return INSTEAD[script]
    return f"{'python' if sys.platform == 'win32' else 'python3'} {script}"


def document(name: str) -> str:
    """Where a reader finds a page of ours, such as ``verify.md``; a wheel brings those that sentences name."""
    return str(ROOT / "docs" / name) if INSTALLED else f"docs/{name}"
