# SPDX-License-Identifier: MIT
"""Without a network (``HF_HUB_OFFLINE=1``): a folder that is whole already, or what the Hub's own cache holds."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from trit.base.errors import UserError
from trit.hub.choice import checkpoint_files, prefers_gguf, ready_models
from trit.hub.transfer import place_copy
from trit.models.checkpoint import shard_names


def find_offline(repo: str, revision: str, folder: Path, encoding: str) -> str:
    """Fill the folder without a network; a sentence about where the files came from.

    Raises:
        UserError: the model is nowhere on this machine.
    """
    if local_model(repo, folder, encoding):
        return f"offline: the files in {folder} are used as they are"
    names: list[str] = []
    try:
        snapshot = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        names = local_model(repo, snapshot, encoding)
    except LocalEntryNotFoundError:
        pass
    if not names:
        raise UserError(
            f"HF_HUB_OFFLINE is set, and neither {folder} nor the Hub's cache ({constants.HF_HUB_CACHE}) holds "
            f"{repo}@{revision}; unset it to download, or copy the files there"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        place_copy(snapshot / name, folder / name)
    return f"offline: taken from the Hub's cache ({constants.HF_HUB_CACHE})"


def local_model(repo: str, folder: Path, encoding: str) -> list[str]:
    """The files of a folder that are a whole model, ready-made or to convert; empty if there is none."""
    if not folder.is_dir():
        return []
    names = [path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*_Pooling/*"))]
    ready = next((list(model.files) for model in ready_models(names, encoding)), [])
    checkpoint = checkpoint_files(names)
    if "config.json" not in checkpoint or not _shards(folder, checkpoint) <= set(checkpoint):
        checkpoint = []
    return (ready or checkpoint) if prefers_gguf(repo) else (checkpoint or ready)


def _shards(folder: Path, names: list[str]) -> set[str]:
    """The files that the index of a checkpoint names; empty if it has no index."""
    for name in names:
        if name.endswith(".index.json"):
            try:
                return set(shard_names(folder / name).values())
            except UserError:
                return {"an index that can be read"}
    return set()
