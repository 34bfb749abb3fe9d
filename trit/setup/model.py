# SPDX-License-Identifier: MIT
"""Step 3: the model's folder: one of the user's, one from the Hub, or the bundled one."""

from __future__ import annotations

import re
from pathlib import Path

from trit.base.errors import TritError, UnknownNameError, UserError
from trit.base.flags import hub_name
from trit.base.places import BUNDLED_MODEL, MODELS_DIR, ROOT, STAMPS, gguf_path
from trit.base.progress import StepLine
from trit.engine.inference import gguf_files
from trit.gguf.encoding_table import AUTO_TYPES, DEFAULT
from trit.gguf.given import check_given
from trit.models.registry import model_in, registry, resolve
from trit.models.source_note import read_manifest
from trit.setup.context import AUTO, Setup, digest, read_stamp, write_stamp
from trit.setup.tool import tool

NAME = "model"
DEED = "finding the model"

# A revision is a branch, a tag, a commit or a pull request (refs/pr/1).
_REPO = re.compile(r"([^@\s]+)(?:@([\w./-]+))?")
# GGUF repositories may have a config.json, too: only with weights it is a checkpoint.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


def check_options(setup: Setup) -> None:
    """Refuse a wrong model at once, not after minutes of other steps.

    Raises:
        UserError: the folder or the Hub id cannot be right.
    """
    if setup.options.hf_repo:
        _parse_repo(setup.options.hf_repo)
    elif setup.options.model_dir:
        _check_folder(setup.options.model_dir, setup.quant_type)
        if given := ready_made(setup.options.model_dir, setup.quant_type):
            check_given(given)


def run(setup: Setup, line: StepLine) -> str:
    """Settle ``setup.model_dir`` and ``setup.known``; downloads from the Hub what is not there yet."""
    options = setup.options
    if options.hf_repo:
        repo, revision = _parse_repo(options.hf_repo)
        setup.model_dir = (options.model_dir or MODELS_DIR) / repo.split("/")[1]
        setup.known = registry().find(repo)
        summary = _download(setup, line, repo, revision, setup.model_dir)
    elif options.model_dir:
        setup.model_dir, summary = options.model_dir, "local folder"
        setup.known = model_in(setup.model_dir)
    else:
        setup.model_dir, summary = BUNDLED_MODEL, "bundled"
        if not BUNDLED_MODEL.is_dir():
            raise TritError(f"the bundled model {BUNDLED_MODEL} is missing; get it back with: git checkout -- models")
    _check_folder(setup.model_dir, setup.quant_type)
    inspect_model(setup, line)
    if setup.known and (advice := setup.known.advice()):
        line.note(advice)
    return f"{summary}: {shown(setup.model_dir)}"


def shown(path: Path) -> str:
    """A path as short as it can be typed from the checkout's top folder."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def ready_made(folder: Path, quant_type: str | None) -> Path | None:
    """The GGUF of a folder that is used as it is; None if the folder is a checkpoint to convert, or holds nothing.

    The name that set-up itself gives (without a type: for any that "auto" may be) comes first, then what the Hub gave,
    then the only GGUF (or split one) there is.
    """
    if (folder / "config.json").is_file() and any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        return None
    source = read_manifest(folder)
    if source and source.gguf and (folder / source.gguf).is_file():
        return folder / source.gguf
    for name in [quant_type] if quant_type else AUTO_TYPES:
        if (usual := gguf_path(folder, name)).is_file():
            return usual
    whole = gguf_files(folder)
    return whole[0] if len(whole) == 1 else None


def given_gguf(setup: Setup) -> Path | None:
    """The GGUF of the model's folder that is used as it is, or converted from; None if the folder is a checkpoint."""
    assert setup.model_dir is not None
    return ready_made(setup.model_dir, None if setup.options.quant_type == AUTO else setup.quant_type)


def _parse_repo(text: str) -> tuple[str, str]:
    """``ORG/NAME@REVISION`` or a known model's short name -> repository and revision."""
    match = _REPO.fullmatch(hub_name(text))
    if not match:
        raise UserError(f"--hf-repo {text}: expected ORG/NAME[@REVISION], such as microsoft/BitNet-b1.58-2B-4T")
    return resolve(match[1]), match[2] or "main"


def _check_folder(folder: Path, quant_type: str | None) -> None:
    if not folder.is_dir():
        raise UserError(f"--model-dir {folder}: there is no such folder; name one that holds a model, or use --hf-repo")
    if not (folder / "config.json").is_file() and not ready_made(folder, quant_type):
        wanted = gguf_path(folder, quant_type or DEFAULT).name
        raise UserError(f"{folder} holds neither config.json nor {wanted}; name a model's folder, or use --hf-repo")


def inspect_model(setup: Setup, line: StepLine) -> None:
    """Refuse what neither loads nor converts before anything is compiled for it; what was looked at stays good.

    Raises:
        UserError: what ``trit inspect`` says of it.
    """
    assert setup.model_dir is not None
    if given := given_gguf(setup):
        check_given(given)
        return
    files = [path for path in sorted(setup.model_dir.iterdir()) if path.is_file() and path.suffix != ".gguf"]
    key = digest(*[(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    stamp = STAMPS / f"inspected-{digest(setup.model_dir.resolve())}.json"
    if (noted := read_stamp(stamp)).get("key") == key and "outtypes" in noted:
        setup.fitting = tuple(noted["outtypes"].split())
        return
    line.update("looking at it")
    looker = "trit.inspect.command:for_setup"
    looked = tool(setup, line, NAME, "looking at the model", looker, {"path": str(setup.model_dir)})
    setup.fitting = tuple(looked["outtypes"])
    write_stamp(stamp, {"key": key, "outtypes": " ".join(setup.fitting)})


def _download(setup: Setup, line: StepLine, repo: str, revision: str, folder: Path) -> str:
    """Fetch a model unless its manifest says that it is there whole; a broken download carries on."""
    source = read_manifest(folder)
    if source and (source.repo, source.revision) == (repo, revision) and source.is_whole(folder):
        return f"{repo} is there already"
    what = f"downloading {repo}"
    line.update(what)
    arguments = {"repo": repo, "revision": revision, "folder": str(folder)}
    arguments["encoding"] = setup.quant_type or DEFAULT
    try:
        tool(setup, line, NAME, what, "trit.hub.command:download", arguments)
    except UnknownNameError as error:
        raise UserError(f"{error}{_meant(repo)}") from error
    return f"downloaded {repo}" if read_manifest(folder) else f"{repo}, offline"


def _meant(repo: str) -> str:
    """The known models whose names are close to one that the Hub does not have."""
    close = [] if registry().find(repo) else registry().close_names(repo)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
