# SPDX-License-Identifier: MIT
"""``trit pull``, ``list``, ``show``, ``rm`` and ``ps``. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from trit.base.errors import EXIT_OK, TritError, UserError
from trit.base.flags import ArgumentParser, real, some_text
from trit.base.places import BUNDLED_MODEL, INSTALLED, MODELS_DIR
from trit.gguf.encoding_table import TABLE
from trit.gguf.header import read_raw_header
from trit.gguf.parts import parts_beside
from trit.library import pull as pulling
from trit.library.find import in_checkout
from trit.library.names import Wanted, of_name, resolve
from trit.library.store import Entry, Store
from trit.models.registry import registry
from trit.models.registry.tables import terminal_table
from trit.models.source_note import read_manifest
from trit.run.running import running

_HERE = "the package" if INSTALLED else "this checkout"


def pull(argv: Sequence[str] | None = None) -> int:
    """Fetch models, or bring them up to date; every byte of what is there is checked."""
    parser = _parser("pull", pull.__doc__)
    parser.add_argument(
        "names", nargs="+", type=some_text, metavar="NAME", help="short name, ORG/NAME[@REVISION], or a folder"
    )
    text = "encoding of the ternary weights of what is converted (default: what is measured to be fastest here)"
    parser.add_argument("-q", "--quant-type", choices=tuple(TABLE), metavar="TYPE", help=text)
    text = "budget for measuring which kernels are fastest here; 0: do not (default: %(default)g)"
    parser.add_argument("--tune-seconds", type=real(0, 86400), default=pulling.TUNE_S, metavar="S", help=text)
    _add_json(parser)
    args = parser.parse_args(argv)
    store = Store()
    options = pulling.Options(args.quant_type, args.tune_seconds, update=True)
    wanted = [_wanted(store, name) for name in args.names]
    for one in wanted:
        entry, fetched = pulling.pull(store, one, options)
        if args.json:
            print(json.dumps({**_facts(store, entry), "fetched_now": fetched}), flush=True)
        else:
            state = "is here" if fetched else "is up to date"
            print(f"{one.shown} {state}: {_size(entry.size)}, {entry.encoding}", flush=True)
    return EXIT_OK


def show_list(argv: Sequence[str] | None = None) -> int:
    """Show the models that are here, whether this checkout or the store has them."""
    parser = _parser("list", show_list.__doc__)
    parser.add_argument("--known", action="store_true", help="the models of the registry instead, here or not")
    _add_json(parser)
    args = parser.parse_args(argv)
    if args.known:
        known = registry()
        names = [{"name": model.short, **asdict(model)} for model in known.models]
        print(json.dumps(names) if args.json else terminal_table(known, "trit pull ORG/NAME"))
        return EXIT_OK
    store = Store()
    found = [*_of_checkout().values(), *(_facts(store, entry) for entry in store.entries()), *_checkpoints(store)]
    if args.json:
        print(json.dumps(found))
        return EXIT_OK
    rows = [("NAME", "SIZE", "ENCODING", "SOURCE", "USED")]
    for one in found:
        used = _ago(one["used"]) if one["used"] else "-"
        rows.append((one["name"], _size(one["bytes"]), one["encoding"], one["source"], used))
    _print_table(rows)
    return EXIT_OK


def show(argv: Sequence[str] | None = None) -> int:
    """Show what is known of a model: where its files are, their hashes, what its header says."""
    parser = _parser("show", show.__doc__)
    parser.add_argument("name", type=some_text, metavar="NAME", help="a model of `trit list`")
    parser.add_argument("--check", action="store_true", help="read all its files and compare their hashes")
    _add_json(parser)
    args = parser.parse_args(argv)
    store = Store()
    wanted = _wanted(store, args.name)
    entry = store.read(wanted.name)
    facts = _facts(store, entry) if entry else _of_checkout().get(wanted.checkout_name)
    if facts is None:
        raise UserError(f"{args.name} is not here; fetch it with: trit pull {args.name}")
    if args.check and entry is None:
        raise UserError(f"{args.name} is a model of {_HERE}: no hash of it is kept; trit inspect looks at its file")
    bad = store.damaged(entry) if args.check and entry else []
    if args.check:
        facts["damaged"] = bad
    if not bad:
        facts |= _header(Path(facts["path"]))
    if args.json:
        print(json.dumps(facts))
    else:
        for key, value in facts.items():
            if key == "files":
                for name, file in value.items():
                    print(f"{'file':<16}{name}, {file['size']} bytes, sha256 {file['sha256']}")
            elif key == "damaged":
                print(f"{'check':<16}{'damaged: ' + ', '.join(bad) if bad else 'all files are as they were fetched'}")
            else:
                print(f"{key.replace('_', ' '):<16}{'-' if value is None else value}")
    if bad:
        raise TritError(f"{bad[0]} of {args.name} is damaged; fetch it again with: trit pull {args.name}")
    return EXIT_OK


def remove(argv: Sequence[str] | None = None) -> int:
    """Delete models of the store, and the files that no other model needs."""
    parser = _parser("rm", remove.__doc__)
    parser.add_argument("names", nargs="+", type=some_text, metavar="NAME", help="models of `trit list`")
    _add_json(parser)
    args = parser.parse_args(argv)
    store = Store()
    names = [_kept_name(store, name) for name in args.names]
    # All are looked at before the first is deleted.
    with ExitStack() as locks:
        for name in names:
            locks.enter_context(store.locked(name))
        freed = {name: store.forget(name) for name in names}
    if args.json:
        print(json.dumps([{"name": name, "freed_bytes": count} for name, count in freed.items()]))
    for name, count in freed.items() if not args.json else ():
        print(f"{of_name(name).shown} is deleted, {_size(count)} are free again")
    return EXIT_OK


def processes(argv: Sequence[str] | None = None) -> int:
    """Show the servers and chats that this user has running."""
    parser = _parser("ps", processes.__doc__)
    _add_json(parser)
    args = parser.parse_args(argv)
    found = running()
    names = _names_of_files()
    if args.json:
        facts = [
            {**asdict(one), "models": one.models, "names": [names.get(path) for path in one.models]} for one in found
        ]
        for one, fact in zip(found, facts, strict=True):
            del fact["more"]
            fact |= {"name": names.get(one.model), "memory_bytes": one.memory}
        print(json.dumps(facts))
        return EXIT_OK
    table = [("PROCESS", "KIND", "MODEL", "ADDRESS", "MEMORY", "SINCE")]
    for one in found:
        memory = "-" if one.memory is None else _size(one.memory)
        model = ", ".join(names.get(path, path) for path in one.models)
        table.append((str(one.pid), one.kind, model, one.address or "-", memory, _ago(one.since)))
    _print_table(table)
    return EXIT_OK


def _parser(name: str, doc: str | None) -> ArgumentParser:
    return ArgumentParser(prog=f"trit {name}", description=doc)


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines for people")


def _folder(text: str) -> Path | None:
    """The checkpoint's folder that a text is the path of."""
    path = Path(text)
    return path.resolve() if path.is_dir() and (path / "config.json").is_file() else None


def _wanted(store: Store, text: str) -> Wanted:
    """The model that is meant; the bundled one, which is converted here, by its folder."""
    if folder := _folder(text):
        return Wanted(str(folder), "")
    return resolve(text, [entry.name for entry in store.entries()]) or Wanted(str(BUNDLED_MODEL), "")


def _kept_name(store: Store, text: str) -> str:
    """The name in the store of a model that is to be deleted.

    Raises:
        UserError: it is not there, or in use.
    """
    wanted = _wanted(store, text)
    entry = store.read(wanted.name)
    if entry is None and not any(place(wanted.name).exists() for place in (store.work, store.checkpoint)):
        if here := _of_checkout().get(wanted.checkout_name):
            raise UserError(f"{text} is a model of {_HERE}, not of the store; delete {here['path']} yourself")
        raise UserError(f"{text} is not here, so there is nothing to delete; trit list shows what is")
    for one in running():
        if entry and str(store.path(entry)) in one.models:
            raise UserError(f"{text} is in use by process {one.pid}, a {one.kind}; end that first")
    return wanted.name


def _facts(store: Store, entry: Entry) -> dict[str, Any]:
    wanted = of_name(entry.name)
    return {
        "name": wanted.shown,
        "source": entry.name,
        "encoding": entry.encoding,
        "bytes": entry.size,
        "used": store.used(entry).isoformat(timespec="seconds"),
        "fetched": entry.fetched,
        "commit": entry.commit,
        "path": str(store.path(entry)),
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in entry.files.items()},
    }


def _checkpoints(store: Store) -> Iterator[dict[str, Any]]:
    """The checkpoints that were fetched to be read as they are."""
    for folder in sorted((store.folder / "checkpoints").glob("*")):
        if (note := read_manifest(folder)) and note.complete:
            yield {
                "name": Wanted(note.repo, note.revision).shown,
                "source": note.repo,
                "encoding": "checkpoint",
                "bytes": sum(file.size for file in note.files.values()),
                "used": None,
                "path": str(folder),
            }


def _of_checkout() -> dict[str, dict[str, Any]]:
    """Folder's name in small letters -> facts, of the models that set-up has put into this checkout."""
    found = {}
    folders = list(MODELS_DIR.iterdir()) if MODELS_DIR.is_dir() else []
    for folder in sorted({*folders, *([BUNDLED_MODEL] if INSTALLED else [])}):
        path = in_checkout(Wanted(f"{_HERE}/{folder.name}"))
        if path is None:
            continue
        known = registry().find(folder.name)
        found[folder.name.lower()] = {
            "name": known.short if known else folder.name,
            "source": _HERE,
            "encoding": pulling.encoding_of(path),
            "bytes": sum(part.stat().st_size for part in parts_beside(path) if part.is_file()),
            "used": None,
            "path": str(path),
        }
    return found


def _names_of_files() -> dict[str, str]:
    """Path of a model's file -> its name."""
    store = Store()
    kept = {str(store.path(entry)): of_name(entry.name).shown for entry in store.entries()}
    return {**{one["path"]: one["name"] for one in _of_checkout().values()}, **kept}


def _header(path: Path) -> dict[str, Any]:
    """What the header of a model's file says."""
    header = read_raw_header(path, arrays=False)
    keys = header.metadata
    architecture = keys.get("general.architecture")
    tensors = [tensor for part in parts_beside(path) for tensor in read_raw_header(part, arrays=False).tensors.values()]
    return {
        "architecture": architecture,
        "parameters": sum(tensor.rows * tensor.columns for tensor in tensors),
        "context": keys.get(f"{architecture}.context_length"),
        "licence": keys.get("general.license"),
        "chat_template": "tokenizer.chat_template" in keys,
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _ago(moment: str) -> str:
    """How long ago a time was, in the largest unit that it has several of."""
    seconds = (datetime.now(timezone.utc) - datetime.fromisoformat(moment)).total_seconds()
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) >= 1:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "now"


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        # Names come from files and the Hub: what a terminal would act on is shown, not sent.
        print("".join(letter if letter.isprintable() else "?" for letter in line))
