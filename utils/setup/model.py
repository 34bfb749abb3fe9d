# SPDX-License-Identifier: MIT
"""Step 3: the model's folder: one of the user's, one from the Hub, or the bundled one."""

from __future__ import annotations

import re
from pathlib import Path

from utils.cli import ROOT, CommandError, TritError, UserError
from utils.host import BUNDLED_MODEL, MODELS_DIR, gguf_path
from utils.setup.context import STAMPS, Setup, digest, read_stamp, write_stamp
from utils.setup.progress import StepLine

NAME = "model"
DEED = "finding the model"

_REPO = re.compile(r"([\w.-]+)/([\w.-]+)(?:@([\w./-]+))?")


def check_options(setup: Setup) -> None:
    """Refuse a wrong model at once, not after minutes of other steps.

    Raises:
        UserError: the folder or the Hub id cannot be right.
    """
    if setup.options.hf_repo:
        _parse_repo(setup.options.hf_repo)
    elif setup.options.model_dir:
        _check_folder(setup.options.model_dir, setup.options.quant_type)


def run(setup: Setup, line: StepLine) -> str:
    """Settle ``setup.model_dir``; downloads from the Hub what is not there yet."""
    options = setup.options
    if options.hf_repo:
        repo, name, revision = _parse_repo(options.hf_repo)
        setup.model_dir = (options.model_dir or MODELS_DIR) / name
        summary = _download(setup, line, repo, revision, setup.model_dir)
    elif options.model_dir:
        setup.model_dir, summary = options.model_dir, "local folder"
    else:
        setup.model_dir, summary = BUNDLED_MODEL, "bundled"
        if not BUNDLED_MODEL.is_dir():
            raise TritError(f"the bundled model {BUNDLED_MODEL} is missing; get it back with: git checkout -- models")
    _check_folder(setup.model_dir, options.quant_type)
    return f"{summary}: {shown(setup.model_dir)}"


def shown(path: Path) -> str:
    """A path as short as it can be typed from the checkout's top folder."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _parse_repo(text: str) -> tuple[str, str, str]:
    match = _REPO.fullmatch(text)
    if not match:
        raise UserError(f"--hf-repo {text}: expected ORG/NAME[@REVISION], such as microsoft/BitNet-b1.58-2B-4T")
    return f"{match[1]}/{match[2]}", match[2], match[3] or "main"


def _check_folder(folder: Path, quant_type: str) -> None:
    if not folder.is_dir():
        raise UserError(f"--model-dir {folder}: there is no such folder; name one that holds a model, or use --hf-repo")
    if not (folder / "config.json").is_file() and not gguf_path(folder, quant_type).is_file():
        wanted = gguf_path(folder, quant_type).name
        raise UserError(f"{folder} holds neither config.json nor {wanted}; name a model's folder, or use --hf-repo")


def _download(setup: Setup, line: StepLine, repo: str, revision: str, folder: Path) -> str:
    """Fetch a model unless the stamp says that it is there whole; a broken download carries on."""
    stamp_file = STAMPS / f"hub-{digest(folder.resolve())}.json"
    stamp = read_stamp(stamp_file)
    names = stamp.get("files", "").split("\n")
    if stamp.get("source") == f"{repo}@{revision}" and all((folder / name).is_file() for name in names):
        return f"{repo} is there already"
    line.update(f"downloading {repo}")
    command: list[str | Path] = [setup.python, "-m", "utils.setup.hub", repo, "--revision", revision, "--to", folder]
    try:
        lines = setup.run(command, f"downloading {repo}", NAME, on_line=lambda text: line.update(text.strip()[:80]))
    except CommandError as error:
        own = [text.removeprefix("error: ") for text in error.tail if text.startswith("error: ")]
        raise (UserError(own[-1]) if own else error) from error
    got = [text.removeprefix("got ") for text in lines if text.startswith("got ")]
    write_stamp(stamp_file, {"source": f"{repo}@{revision}", "files": "\n".join(got)})
    return f"downloaded {repo}"
