# SPDX-License-Identifier: MIT
"""Fill a name of the store: download, look, tune, convert, keep. Standard library only: each step has its own process.

A pull that was stopped carries on where it was, and of two pulls of one name the second waits for the first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.base.errors import CommandError, UnknownNameError, UserError
from trit.base.places import engine_program, gguf_path
from trit.base.processes import run, signals_end_us
from trit.base.progress import StepLine
from trit.base.tool import call_tool
from trit.gguf.encoding_table import DEFAULT
from trit.gguf.given import check_given
from trit.gguf.header import read_raw_header
from trit.gguf.identify import identify
from trit.gguf.parts import parts_beside
from trit.library.names import Wanted, did_you_mean
from trit.library.store import Entry, Kept, Store, now, sha256_of
from trit.models.source_note import FetchedFile, Manifest, read_manifest

TUNE_S = 60.0
_TUNER = "trit-tune"
# A package that the steps need: where it is, the others are, too.
_PACKAGE = "huggingface_hub"
# What is converted from a folder, by the ends of names.
_INPUTS = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
# What the tools' sentences call what a user of names knows under another name.
_FLAGS = {"--model-dir": "TRIT_HOME", "--outtype": "-q", "--list-models": "trit list --known"}


@dataclass(frozen=True)
class Options:
    """How a model is to be had.

    Attributes:
        quant_type: encoding of the ternary weights of what is converted; None: what is measured to be fastest here.
        tune_seconds: budget of measuring; 0: the presets decide.
        update: whether to look at the Hub for a newer commit, and at every byte of what is there.
    """

    quant_type: str | None = None
    tune_seconds: float = TUNE_S
    update: bool = False


def pull(store: Store, wanted: Wanted, options: Options) -> tuple[Entry, bool]:
    """Have a model: what is kept of it, and whether anything was fetched or made for that.

    Progress goes to standard error, a line a step.

    Raises:
        UserError: it cannot be had, does not fit, or cannot be used.
        TritError: the Hub did not deliver it, or a step failed.
        ModuleNotFoundError: this Python has not the packages; another one may.
    """
    with _filling(store, wanted, options) as filling:
        if entry := filling.usable():
            return entry, False
        return filling.fill(), True


def fetch_checkpoint(store: Store, wanted: Wanted) -> Path:
    """The folder of a repository's checkpoint, which a pull converts and does not keep; it is fetched once.

    Raises:
        UserError: it has none, it cannot be had, or does not fit.
        TritError: the Hub did not deliver it.
    """
    folder = store.checkpoint(wanted.name)
    with _filling(store, wanted, Options()) as filling:
        note = read_manifest(folder)
        if not (note and note.is_whole(folder)):
            note = filling.fetch(folder)
        if note and note.gguf:
            shutil.rmtree(folder)
            raise UserError(
                f"{wanted.name} has a GGUF file and no checkpoint, which is needed here; name another model"
            )
    return folder


@contextmanager
def _filling(store: Store, wanted: Wanted, options: Options) -> Iterator[_Filling]:
    """Hold the lock of a name, and tell what ends us."""

    def wait(owner: str) -> None:
        print(f"process {owner} is fetching {wanted.name}: waiting for it")

    with redirect_stdout(sys.stderr), signals_end_us(), store.locked(wanted.name, wait) as keep_open:
        try:
            yield _Filling(store, wanted, options, keep_open)
        except CommandError as error:
            for line in error.tail:
                print(f"    {line}")
            raise
        except KeyboardInterrupt:
            print("stopped; give the same command again and it carries on where it was")
            raise


def folder_state(folder: Path) -> str:
    """A hash over names, sizes and times of a checkpoint's files: with another one it is converted anew."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _INPUTS and path.is_file()]
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]


def encoding_of(path: Path) -> str:
    """The layout of most weights of a GGUF file that are ternary; the type of most if none is."""
    sizes: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for part in parts_beside(path):
        for found in identify(read_raw_header(part, arrays=False)):
            (sizes if found.layout else others)[found.name] += found.nbytes
    return (sizes or others).most_common(1)[0][0] if sizes or others else "empty"


class _Filling:
    """One pull, with the name's lock held."""

    def __init__(self, store: Store, wanted: Wanted, options: Options, keep_open: Sequence[int]) -> None:
        self._store, self._wanted, self._options, self._keep_open = store, wanted, options, keep_open
        self._work, self._log = store.work(wanted.name), store.log(wanted.name)
        self._steps = 0

    def usable(self) -> Entry | None:
        """What is kept and good; None if it has to be fetched."""
        store, entry = self._store, self._store.read(self._wanted.name)
        if entry is None or self._options.quant_type not in (None, entry.wanted, entry.encoding):
            return None
        if self._options.update or not store.is_fresh(entry):
            if bad := store.damaged(entry):
                print(f"note: {bad[0]} of {entry.name} is damaged, or was changed: it is fetched again")
                return None
            entry = store.stamp(entry)
        if self._wanted.is_folder:
            return entry if entry.commit == folder_state(Path(self._wanted.source)) else None
        if not self._options.update:
            return entry
        self._begin()
        latest = self._tool("asking", "trit.hub.command:latest", self._at_the_hub())["commit"]
        return entry if latest in (None, entry.commit) else None

    def fill(self) -> Entry:
        """All steps; what is kept then."""
        self._begin()
        source, commit = self._source()
        given = source if source.is_file() else None
        foreign = check_given(given) if given else None
        fitting = [DEFAULT]
        if given is None:
            with self._step("check", "looking at the model") as line:
                looked = self._call(
                    line, "looking at the model", "trit.inspect.command:for_setup", {"path": str(source)}
                )
                fitting = looked["outtypes"]
                line.done("it can be converted")
        fastest = self._tune(source)
        if given is None or foreign:
            asked = self._options.quant_type
            model = self._convert(source, asked or foreign or (fastest if fastest in fitting else fitting[0]), commit)
        else:
            model = given
        return self._keep(model, commit)

    def _begin(self) -> None:
        """Have what every step needs."""
        if importlib.util.find_spec(_PACKAGE) is None:
            raise ModuleNotFoundError(f"no {_PACKAGE}", name=_PACKAGE)
        self._log.unlink(missing_ok=True)

    def _at_the_hub(self) -> dict[str, str]:
        return {"repo": self._wanted.source, "revision": self._wanted.revision}

    def _source(self) -> tuple[Path, str]:
        """The folder of a checkpoint or a GGUF file that came ready-made, and the commit."""
        if self._wanted.is_folder:
            folder = Path(self._wanted.source)
            return folder, folder_state(folder)
        note = self._download(self._work)
        if (known := self._wanted.known) and (advice := known.advice()):
            print(f"note: {advice}")
        if note is None:  # without a network, out of the Hub's own cache
            ready = sorted(self._work.glob("*.gguf"))
            return ready[0] if ready else self._work, "unknown"
        return self._work / note.gguf if note.gguf else self._work, note.commit

    def fetch(self, folder: Path) -> Manifest | None:
        """Download the files into a folder, without a step behind it; what came."""
        self._begin()
        return self._download(folder)

    def _download(self, folder: Path) -> Manifest | None:
        arguments = {**self._at_the_hub(), "folder": str(folder), "encoding": self._options.quant_type or DEFAULT}
        try:
            self._tool("download", "trit.hub.command:download", arguments)
        except UnknownNameError as error:
            near = "" if self._wanted.known else did_you_mean(self._wanted.source)
            raise UserError(f"{error}{near}") from error
        return read_manifest(folder)

    def _tune(self, source: Path) -> str | None:
        """Measure what is fastest for these shapes; the encoding to convert to, None where nothing says."""
        if not engine_program(_TUNER).is_file():
            return None
        arguments = ["-m", str(source), "--if-needed", "--no-variants", "--seconds", f"{self._options.tune_seconds:g}"]
        with self._step("tuning", "measuring which kernels are fastest here") as line:
            found = self._call(line, "tuning", "trit.tune.command:for_setup", {"arguments": arguments})
            line.done(str(found["text"]))
        fastest: str | None = found["format"]
        return fastest

    def _convert(self, source: Path, outtype: str, commit: str) -> Path:
        made = self._work / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        gguf = gguf_path(made, outtype)
        arguments = [str(source), "--outfile", str(gguf), "--outtype", outtype]
        if not self._wanted.is_folder and commit != "unknown":
            arguments += ["--source", f"{self._wanted.source}@{commit}"]
        with self._step("conversion", f"converting to {outtype}") as line:
            try:
                self._call(line, "conversion", "trit.convert.command:for_setup", {"arguments": arguments})
            except UserError as error:
                if not error.flags:
                    raise
                hub = "" if self._wanted.is_folder else f"trit download {self._wanted.source} --to FOLDER, then "
                how = f"{hub}trit convert FOLDER {' '.join(error.flags)}"
                raise UserError(f"{error}; that is a flag of trit convert: {how}, then trit run FOLDER") from error
            line.done(f"{outtype}, {gguf.stat().st_size / 1e6:.1f} MB")
        return gguf

    def _keep(self, model: Path, commit: str) -> Entry:
        note = read_manifest(self._work)
        files = {path.name: path for path in parts_beside(model)}
        hashes = {name: file.sha256 for name, file in note.files.items()} if note and note.gguf else {}
        kept = {}
        for name, path in files.items():
            # What was made here is hashed here; what came was hashed when it came.
            sha256 = hashes.get(name) if path.parent == self._work else None
            kept[name] = Kept(path.stat().st_size, sha256 or sha256_of(path), path.stat().st_mtime_ns)
        name, wanted = self._wanted.name, self._options.quant_type
        entry = self._store.add(Entry(name, commit, encoding_of(model), wanted, now(), kept), files)
        if not self._wanted.is_folder:
            # As in a folder that set-up has filled: what the registry says of a model is found by it.
            sources = {name: FetchedFile(file.size, file.sha256) for name, file in kept.items()}
            note = Manifest(self._wanted.source, self._wanted.revision, commit, True, model.name, sources)
            note.write(self._store.path(entry).parent)
        return entry

    def _step(self, name: str, deed: str) -> StepLine:
        self._steps += 1
        return StepLine(self._steps, None, name, deed)

    def _tool(self, name: str, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        what = f"{'downloading' if name == 'download' else 'asking for'} {self._wanted.source}"
        with self._step(name, what) as line:
            answer = self._call(line, what, function, arguments)
            line.done(self._wanted.name)
        return answer

    def _call(self, line: StepLine, what: str, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        def start(command: Sequence[str | Path], show: Callable[[str], None]) -> list[str]:
            return run(command, what, self._log, on_line=show, keep_open=self._keep_open)

        return call_tool(start, Path(sys.executable), line, function, arguments, _FLAGS)
