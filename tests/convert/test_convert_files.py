# SPDX-License-Identifier: MIT
"""Split files and the manifest: what stands beside the tensors of a converted model."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.checkpoints import TEXT, make_checkpoint, refusal
from trit.base.errors import TritError, UserError, run_main
from trit.base.files import atomic_outputs
from trit.base.places import ROOT
from trit.convert.command import main
from trit.convert.from_checkpoint import Options, convert
from trit.convert.manifest import parse_source
from trit.convert.read_back import verify
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header
from trit.gguf.writer import PlannedTensor, parse_size, part_paths, split_tensors

I2_S = Options(ENCODINGS["i2_s"], None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("pristine") / "m", shards=2).directory


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


def options(**changes: object) -> Options:
    return Options(ENCODINGS["i2_s"], None, **changes)  # type: ignore[arg-type]


def test_split_files_are_the_whole_model(checkpoint: Path, engine_bin: Path, tmp_path: Path) -> None:
    """The same tensors in the same order as in one file, every file within its limit, and the same results."""
    whole = convert(checkpoint, tmp_path / "whole.gguf", I2_S, progress=False).paths
    parts = convert(checkpoint, tmp_path / "part.gguf", options(split_bytes=100_000), progress=False).paths
    count = len(parts)
    assert count > 2 and [path.name for path in parts] == [
        f"part-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)
    ]
    header, headers = read_header(whole[0]), [read_header(path) for path in parts]
    pairs = [(path, entry) for path, part in zip(parts, headers, strict=True) for entry in part.tensors.values()]
    assert [entry.name for _, entry in pairs] == list(header.tensors)
    for path, entry in pairs:
        assert entry.read(path).tobytes() == header.tensors[entry.name].read(whole[0]).tobytes()
    for i, part in enumerate(headers):
        assert part.metadata["split.no"] == i and part.metadata["split.count"] == count
        assert part.metadata["split.tensors.count"] == len(header.tensors)
        sizes = [entry.nbytes for entry in part.tensors.values()]
        assert len(sizes) == 1 or sum(sizes) <= 100_000
    own = {"split.no", "split.count", "split.tensors.count"}
    assert set(headers[0].metadata) - own == set(header.metadata)
    assert perplexity(engine_bin, parts[0]) == perplexity(engine_bin, whole[0])


def perplexity(engine_bin: Path, gguf: Path) -> str:
    text = gguf.with_suffix(".txt")
    text.write_text(TEXT, encoding="utf-8")
    command = [engine_bin / "llama-perplexity", "-m", gguf, "-f", text, "-c", "64", "--chunks", "3", "-t", "1"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    found = re.search(r"Final estimate: PPL = ([\d.]+)", done.stdout + done.stderr)
    assert found, done.stderr[-1000:]
    return found[1]


def test_one_file_if_it_fits(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(checkpoint), "--split-max-size", "2G"]) == 0
    assert "split.count" not in read_header(checkpoint / "ggml-model-i2_s.gguf").metadata
    assert " files;" not in capsys.readouterr().out


def test_runs_of_tensors() -> None:
    tensors = [PlannedTensor(str(i), (size,), 0) for i, size in enumerate((1, 2, 3, 9, 1, 1))]
    assert split_tensors(tensors, None) == [tensors]
    lengths = [[tensor.nbytes for tensor in run] for run in split_tensors(tensors, 24)]
    assert lengths == [[4, 8, 12], [36], [4, 4]]
    assert [path.name for path in part_paths(Path("a.gguf"), 1)] == ["a.gguf"]


def test_sizes() -> None:
    assert (parse_size("2G"), parse_size("300M")) == (2 * 10**9, 3 * 10**8)
    for text in ("2", "0G", "-1G", "2g", "1.5G", "2GB", ""):
        with pytest.raises(UserError, match=r"--split-max-size .*: expected a number and M or G"):
            parse_size(text)


def test_existing_part_is_kept_without_force(checkpoint: Path) -> None:
    planned = options(split_bytes=100_000, force=False)
    count = len(convert(checkpoint, checkpoint / "n.gguf", planned, progress=False).paths)
    taken = checkpoint / f"m-{count:05d}-of-{count:05d}.gguf"
    taken.write_text("precious")
    with pytest.raises(UserError, match=rf"{taken.name}: exists already; pass --force"):
        convert(checkpoint, checkpoint / "m.gguf", planned, progress=False)
    assert taken.read_text() == "precious"


def test_no_part_without_the_others(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(paths: list[Path], *arguments: object) -> str:
        with paths[-1].open("r+b") as file:
            file.seek(-64, 2)
            file.write(b"\x55" * 64)
        return verify(paths, *arguments)  # type: ignore[arg-type]

    before = sorted(checkpoint.iterdir())
    monkeypatch.setattr("trit.convert.from_checkpoint.verify", damage)
    with pytest.raises(TritError, match="reads back with other values"):
        convert(checkpoint, checkpoint / "m.gguf", options(split_bytes=100_000), progress=False)
    assert sorted(checkpoint.iterdir()) == before


def test_first_file_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append(target.name), replace(self, target))[1])
    with atomic_outputs(paths) as partials:
        for partial in partials:
            partial.write_text(partial.name)
        assert not any(path.exists() for path in paths)
    assert order == ["c", "b", "a"] and sorted(tmp_path.iterdir()) == paths


def test_manifest_names_every_weight_file(checkpoint: Path) -> None:
    source = "somebody/a-model@v1.0"
    assert main([str(checkpoint), "--source", source]) == 0
    metadata = read_header(checkpoint / "ggml-model-i2_s.gguf").metadata
    assert metadata["trit.source.repository"] == "somebody/a-model" and metadata["trit.source.revision"] == "v1.0"
    files = sorted(checkpoint.glob("*.safetensors"))
    assert metadata["trit.source.files"] == [path.name for path in files] and len(files) == 2
    assert metadata["trit.source.sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert metadata["trit.encoding.ternary"] == "i2_s" and metadata["trit.encoding.embedding"] == "q6_k"
    if shutil.which("git") and (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", metadata["trit.converter.commit"])


def note_download(checkpoint: Path, commit: str) -> list[Path]:
    """What huggingface_hub leaves beside files that it downloaded."""
    folder = checkpoint / ".cache" / "huggingface" / "download"
    folder.mkdir(parents=True)
    notes = []
    for path in checkpoint.glob("*.safetensors"):
        notes.append(folder / f"{path.name}.metadata")
        notes[-1].write_text(f"{commit}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n1700000000.0\n")
    return notes


def revision(checkpoint: Path, *flags: str) -> str | None:
    assert main([str(checkpoint), "--force", *flags]) == 0
    found = read_header(checkpoint / "ggml-model-i2_s.gguf").metadata.get("trit.source.revision")
    assert found is None or isinstance(found, str)
    return found


def test_revision_comes_from_the_download(checkpoint: Path) -> None:
    assert revision(checkpoint) is None
    commit = "0123456789abcdef" * 2 + "01234567"
    notes = note_download(checkpoint, commit)
    assert revision(checkpoint) == commit
    # The commit says more than the branch that was asked for.
    assert revision(checkpoint, "--source", "a/b@main") == commit
    text = notes[0].read_text()
    notes[0].write_text(text.replace(text.splitlines()[1], "f" * 64))
    assert revision(checkpoint) is None, "a file that is not what was downloaded is of no revision"
    notes[0].write_text(text.replace(commit, "f" * 40))
    assert revision(checkpoint) is None, "files of two revisions are of none"
    notes[0].write_bytes(b"\xff\xfe")
    assert revision(checkpoint) is None


def test_source_that_is_none(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_source("a/b") == ("a/b", "")
    assert "--source a b: expected ORG/NAME" in refusal(capsys, checkpoint, "--source", "a b")


def test_split_flag_that_is_no_size(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, [str(checkpoint), "--split-max-size", "2"]) == 2
    assert "--split-max-size 2: expected a number and M or G, such as 2G" in capsys.readouterr().err


def test_same_input_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert(checkpoint, tmp_path / f"{name}.gguf", I2_S, progress=False)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert json.loads((checkpoint / "config.json").read_text())["tie_word_embeddings"]
