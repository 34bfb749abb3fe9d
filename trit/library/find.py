# SPDX-License-Identifier: MIT
"""The GGUF file of a model that a command was given; see :mod:`trit.base.by_name`. Standard library only."""

from __future__ import annotations

from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import BUNDLED_MODEL, INSTALLED, MODELS_DIR, engine_binary
from trit.engine.inference import gguf_files
from trit.gguf.made import default_model
from trit.library.names import MAIN, Wanted, is_path, resolve
from trit.library.pull import Options, fetch_checkpoint, folder_state, pull
from trit.library.store import Entry, Store
from trit.models.registry import registry
from trit.models.source_note import read_manifest


def find(path: Path) -> Path:
    """The GGUF file of a name, or of a checkpoint's folder; a path that is neither comes back as it is.

    Raises:
        UserError: there is no such model, it cannot be had or used, or there is no engine to use it with.
        TritError: the Hub did not deliver it, or a step failed.
    """
    if path.is_dir() and (path / "config.json").is_file():
        return path if gguf_files(path) else kept(Store(), Wanted(str(path.resolve()), ""))
    if _is_no_name(path):
        return path
    store = Store()
    wanted = resolve(str(path), [entry.name for entry in store.entries()])
    if wanted is None:
        made = default_model()
        return made if made.is_file() else kept(store, Wanted(str(BUNDLED_MODEL), ""))
    return in_checkout(wanted) or kept(store, wanted)


def check_name(path: Path) -> None:
    """Refuse what is neither a path nor a name of a model; nothing is fetched.

    Raises:
        UserError: says which names are near.
    """
    if not _is_no_name(path):
        resolve(str(path), [entry.name for entry in Store().entries()])


def _is_no_name(path: Path) -> bool:
    # In a folder of other things a known name means the model.
    return is_path(path) or (path.exists() and not (path.is_dir() and registry().find(str(path))))


def find_checkpoint(path: Path) -> Path:
    """The folder with the checkpoint of a name; a path that is none comes back as it is.

    Raises:
        UserError: there is no such model, it has no checkpoint, or it cannot be had.
        TritError: the Hub did not deliver it.
    """
    store = Store()
    there = path.exists() or is_path(path)
    wanted = None if there else resolve(str(path), [entry.name for entry in store.entries()])
    if wanted is None:
        folder = path if there else BUNDLED_MODEL
        if INSTALLED and folder.resolve() == BUNDLED_MODEL:
            raise UserError(
                f"{BUNDLED_MODEL.name}: a package has no checkpoint of it, which is needed here; name another"
            )
        return folder
    if wanted.is_folder:
        return Path(wanted.source)
    here = MODELS_DIR / wanted.source.split("/")[1]
    note = read_manifest(here)
    if wanted.revision == MAIN and note and not note.gguf and note.is_whole(here):
        return here
    return fetch_checkpoint(store, wanted)


def in_checkout(wanted: Wanted) -> Path | None:
    """The file of a model that set-up has put into this checkout."""
    if wanted.is_folder or wanted.revision != MAIN:
        return None
    name = wanted.source.split("/")[1]
    folder = BUNDLED_MODEL if INSTALLED and name == BUNDLED_MODEL.name else MODELS_DIR / name
    files = gguf_files(folder) if folder.is_dir() else []
    made = default_model(folder)
    return made if made.is_file() else files[0] if len(files) == 1 else None


def kept(store: Store, wanted: Wanted) -> Path:
    """The file in the store, fetched and converted on first use."""
    entry = store.read(wanted.name)
    if entry is None or not store.is_fresh(entry) or not _same_folder(wanted, entry):
        engine_binary("llama-completion")  # before gigabytes come for it
        entry, _ = pull(store, wanted, Options())
    store.touch(entry)
    return store.path(entry)


def _same_folder(wanted: Wanted, entry: Entry) -> bool:
    return not wanted.is_folder or entry.commit == folder_state(Path(wanted.source))
