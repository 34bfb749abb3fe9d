# SPDX-License-Identifier: MIT
"""Download the files of a model that set-up needs: ``trit download ORG/NAME --to FOLDER``.

Runs in the environment that set-up has made, for it needs the ``huggingface_hub`` package. ``HF_TOKEN``,
``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from trit.base.errors import EXIT_OK, TritError, UserError
from trit.base.flags import ArgumentParser, a_path, called, some_text
from trit.gguf.encoding_table import DEFAULT, TABLE
from trit.hub import space
from trit.hub.choice import checkpoint_files, nothing_usable, prefers_gguf, ready_models
from trit.hub.failures import EXPLAINED, explained, not_a_hub
from trit.hub.gguf_head import look_into
from trit.hub.listing import Listing, RemoteFile, list_repository
from trit.hub.offline import find_offline
from trit.hub.transfer import Progress, fetch, partial_path, present_bytes, take_from_cache
from trit.models.json_files import read_json
from trit.models.source_note import FetchedFile, Manifest, read_manifest


def main(argv: Sequence[str] | None = None) -> int:
    """Download; lines that begin with ``note:`` are for the user, the others say how far it is."""
    parser = ArgumentParser(
        prog="trit download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", type=some_text, help="ORG/NAME on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: %(default)s)")
    parser.add_argument("--to", type=a_path, required=True, metavar="FOLDER", help="folder that the files go into")
    parser.add_argument(
        "--quant-type", choices=tuple(TABLE), default=DEFAULT, help="what it is wanted for (default: %(default)s)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; what is told goes to standard error"
    )
    args = parser.parse_args(argv)
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        download(
            args.repo, args.revision, str(args.to), args.quant_type, lambda note: print(f"note: {note}", flush=True)
        )
    if args.json:
        note = read_manifest(args.to)
        print(json.dumps({"folder": str(args.to), "commit": note and note.commit, "gguf": note and note.gguf}))
    return EXIT_OK


def download(repo: str, revision: str, folder: str, encoding: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Fetch a model into a folder; nothing more to say of it, so the result is empty.

    Args:
        repo: ``ORG/NAME``.
        revision: branch, tag or commit.
        folder: path of the folder.
        encoding: what the model is wanted for.
        tell: takes notes for the user.

    Raises:
        UserError: it cannot be had, does not fit, or cannot be used.
        TritError: the Hub did not deliver it.
    """
    with _explaining(repo, revision):
        if constants.HF_HUB_OFFLINE:
            print(find_offline(repo, revision, Path(folder), encoding))
        else:
            fetch_model(list_repository(repo, revision), Path(folder), encoding, tell)
    return {}


def latest(repo: str, revision: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The ``commit`` that a revision stands for at the Hub now; None without a network (``HF_HUB_OFFLINE=1``).

    Raises:
        UserError: there is no such repository or revision, or no access to it.
        TritError: the Hub did not answer.
    """
    if constants.HF_HUB_OFFLINE:
        return {"commit": None}
    with _explaining(repo, revision):
        return {"commit": list_repository(repo, revision).commit}


@contextmanager
def _explaining(repo: str, revision: str) -> Iterator[None]:
    """Turn what talking to the Hub raises into sentences."""
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"{repo} is no name of a repository; expected ORG/NAME") from error
    except TritError:
        raise
    except EXPLAINED as error:
        raise explained(error, repo, revision) from error
    except Exception as error:  # an answer of another form may raise anything, here or in huggingface_hub
        raise not_a_hub(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def fetch_model(listing: Listing, folder: Path, encoding: str, tell: Callable[[str], None]) -> None:
    """Choose, measure, download and check; what the folder then holds is in its manifest.

    Raises:
        UserError: nothing usable, no room, or the folder holds something else.
        HfHubHTTPError: see :func:`trit.hub.transfer.fetch`.
        TransportError: likewise.
    """
    before = read_manifest(folder)
    if before and before.repo != listing.repo:
        where = f"choose another folder for {listing.repo} with {called('--model-dir')}"
        raise UserError(f"{folder} holds {before.repo}; {where}")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".head-*"):
        shutil.rmtree(leftover)
    owned = dict(before.files) if before else {}
    files, gguf = choose(listing, folder, encoding, owned, tell)
    progress = Progress(sum(file.size for file in files))
    got: dict[str, FetchedFile] = {}
    for file in files:
        cached = take_from_cache(listing.repo, listing.commit, file, folder)
        got[file.name] = cached or fetch(file, folder, progress, ours=file.name in owned)
        Manifest(listing.repo, listing.revision, listing.commit, False, gguf, {**owned, **got}).write(folder)
    for outdated in owned.keys() - got.keys():
        (folder / outdated).unlink(missing_ok=True)
    Manifest(listing.repo, listing.revision, listing.commit, True, gguf, got).write(folder)


def choose(
    listing: Listing, folder: Path, encoding: str, owned: dict[str, FetchedFile], tell: Callable[[str], None]
) -> tuple[list[RemoteFile], str | None]:
    """The files to download, for which there is room; with them the (first) file of a GGUF model, if it is one.

    A repository's checkpoint comes first, its GGUF files if there is none or if they are what it is for; but a GGUF
    that has to be converted is no better than a checkpoint.
    """
    checkpoint = checkpoint_files(listing.names)
    refusals: list[str] = []
    foreign: list[RemoteFile] = []
    for model in ready_models(listing.names, encoding) if not checkpoint or prefers_gguf(listing.repo) else []:
        files = [listing.file(name) for name in model.files]
        _need_of_gguf(listing, files, folder, loads=True)
        try:
            found = look_into(files[0], folder)
        except UserError as error:
            _forget(files, folder)
            refusals.append(str(error))
            continue
        if found.loads:
            if found.layout != encoding:
                what = f"ready-made as {found.layout}, so it is used as that and not made {encoding}"
                tell(f"{listing.repo} is {what}")
            _warn(listing, _need_of_gguf(listing, files, folder, loads=True), tell)
            _forget(foreign, folder)
            return files, files[0].name
        if foreign:
            _forget(files, folder)
        foreign = foreign or files
    if checkpoint:
        _forget(foreign, folder)
        return _checkpoint(listing, checkpoint, folder, encoding, "config.json" in owned, tell), None
    if foreign:
        _warn(listing, _need_of_gguf(listing, foreign, folder, loads=False), tell)
        return foreign, foreign[0].name
    if refusals:
        raise UserError(f"{listing.repo} has no GGUF file that can be used: {'; '.join(refusals)}")
    raise nothing_usable(listing.repo, listing.names)


def _forget(files: list[RemoteFile], folder: Path) -> None:
    """Delete the beginnings of files that were looked into and not chosen."""
    for file in files:
        partial_path(folder, file).unlink(missing_ok=True)


def _need_of_gguf(listing: Listing, files: list[RemoteFile], folder: Path, *, loads: bool) -> space.Need:
    """What a GGUF model needs; raises UserError if the disk has no room for it."""
    download = sum(file.size - present_bytes(folder, file) for file in files)
    need = space.gguf_need(download, sum(file.size for file in files), loads=loads)
    space.check_disk(listing.repo, need, folder)
    return need


def _checkpoint(
    listing: Listing, names: list[str], folder: Path, encoding: str, ours: bool, tell: Callable[[str], None]
) -> list[RemoteFile]:
    """The files of a checkpoint; raises UserError if the disk has no room for them and for what is made of them."""
    files = [listing.file(name) for name in names]
    config = _config(files, folder, ours)
    download = sum(file.size - present_bytes(folder, file) for file in files)
    weights = sum(file.size for file in files if file.name.endswith((".safetensors", ".bin")))
    need = space.checkpoint_need(download, weights, config, encoding)
    space.check_disk(listing.repo, need, folder)
    _warn(listing, need, tell)
    return files


def _config(files: list[RemoteFile], folder: Path, ours: bool) -> dict[str, Any]:
    """The model's config.json, fetched before everything else; empty if there is none."""
    for file in files:
        if file.name == "config.json":
            fetch(file, folder, Progress(file.size), ours=ours)
            try:
                return read_json(folder / file.name)
            except UserError:
                return {}  # the converter refuses it with the right words
    raise UserError("the repository has weights and no config.json, so what they are is unknown")


def _warn(listing: Listing, need: space.Need, tell: Callable[[str], None]) -> None:
    if warning := space.memory_warning(listing.repo, need):
        tell(warning)
