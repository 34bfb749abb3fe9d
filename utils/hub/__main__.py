# SPDX-License-Identifier: MIT
"""Download the files of a model that set-up needs: ``python -m utils.hub ORG/NAME --to FOLDER``.

Runs in the environment that set-up has made, for it needs the ``huggingface_hub`` package. ``HF_TOKEN``,
``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError

from utils.cli import EXIT_OK, UserError, run_main
from utils.hub import space
from utils.hub.choice import TERNARY, checkpoint_files, nothing_usable, prefers_gguf, ready_models
from utils.hub.failures import EXPLAINED, explained
from utils.hub.gguf_head import check_ready
from utils.hub.listing import Listing, RemoteFile, list_repository
from utils.hub.manifest import FetchedFile, Manifest, read_manifest
from utils.hub.offline import find_offline
from utils.hub.transfer import Progress, fetch, partial_path, present_bytes, take_from_cache
from utils.weight_encodings import ENCODINGS


def main(argv: Sequence[str] | None = None) -> int:
    """Download; lines that begin with ``note:`` are for the user, the others say how far it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", help="ORG/NAME on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: %(default)s)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder that the files go into")
    parser.add_argument(
        "--quant-type", choices=tuple(ENCODINGS), default="i2_s", help="what it is wanted for (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        if constants.HF_HUB_OFFLINE:
            print(find_offline(args.repo, args.revision, args.to, args.quant_type))
        else:
            fetch_model(list_repository(args.repo, args.revision), args.to, args.quant_type)
    except HFValidationError as error:
        raise UserError(f"{args.repo} is no name of a repository; expected ORG/NAME") from error
    except EXPLAINED as error:
        raise explained(error, args.repo, args.revision) from error
    return EXIT_OK


def fetch_model(listing: Listing, folder: Path, encoding: str) -> None:
    """Choose, measure, download and check; what the folder then holds is in its manifest.

    Raises:
        UserError: nothing usable, no room, or the folder holds something else.
        HfHubHTTPError: see :func:`utils.hub.transfer.fetch`.
        TransportError: likewise.
    """
    before = read_manifest(folder)
    if before and before.repo != listing.repo:
        raise UserError(f"{folder} holds {before.repo}; choose another folder for {listing.repo} with --model-dir")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".head-*"):
        shutil.rmtree(leftover)
    owned = dict(before.files) if before else {}
    files, gguf = choose(listing, folder, encoding, owned)
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
    listing: Listing, folder: Path, encoding: str, owned: dict[str, FetchedFile]
) -> tuple[list[RemoteFile], str | None]:
    """The files to download, for which there is room; with them the (first) file of a ready-made model, if it is one.

    A repository's checkpoint comes first, its GGUF files if there is none or if they are what it is for.
    """
    checkpoint = checkpoint_files(listing.names)
    ready = ready_models(listing.names, encoding)
    refusals = []
    if not checkpoint or prefers_gguf(listing.repo):
        for model in ready:
            files = [listing.file(name) for name in model.files]
            download = sum(file.size - present_bytes(folder, file) for file in files)
            need = space.ready_need(download, sum(file.size for file in files))
            space.check_disk(listing.repo, need, folder)
            try:
                found = check_ready(files[0], folder)
            except UserError as error:
                partial_path(folder, files[0]).unlink(missing_ok=True)
                refusals.append(str(error))
                continue
            _warn(listing, need)
            if found != encoding and encoding in TERNARY:
                print(f"note: {listing.repo} is ready-made as {found}, so it is used as that and not made {encoding}")
            return files, model.files[0]
    if checkpoint:
        files = [listing.file(name) for name in checkpoint]
        config = _config(files, folder, ours="config.json" in owned)
        download = sum(file.size - present_bytes(folder, file) for file in files)
        weights = sum(file.size for file in files if file.name.endswith((".safetensors", ".bin")))
        need = space.checkpoint_need(download, weights, config, encoding)
        space.check_disk(listing.repo, need, folder)
        _warn(listing, need)
        return files, None
    if refusals:
        raise UserError(f"{listing.repo} has no GGUF file that can be used: {'; '.join(refusals)}")
    raise nothing_usable(listing.repo, listing.names)


def _config(files: list[RemoteFile], folder: Path, ours: bool) -> dict[str, Any]:
    """The model's config.json, fetched before everything else; empty if there is none."""
    for file in files:
        if file.name == "config.json":
            fetch(file, folder, Progress(file.size), ours=ours)
            try:
                config = json.loads((folder / file.name).read_text(encoding="utf-8"))
            except ValueError:
                return {}  # the converter refuses it with the right words
            return config if isinstance(config, dict) else {}
    raise UserError("the repository has weights and no config.json, so what they are is unknown")


def _warn(listing: Listing, need: space.Need) -> None:
    if warning := space.memory_warning(listing.repo, need):
        print(f"note: {warning}", flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main))
