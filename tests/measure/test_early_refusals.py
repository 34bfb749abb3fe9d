# SPDX-License-Identifier: MIT
"""Where results go is looked at before anything is measured or made, by every command that writes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from trit.base.errors import UserError, run_main
from trit.base.files import check_output


def test_places(tmp_path: Path) -> None:
    check_output("--out", None)
    check_output("--out", tmp_path / "file.json")
    check_output("--out", tmp_path / "new" / "deep" / "file.json", in_folder=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "file" / "x", "cannot be written ("),
        (tmp_path / "new" / "x.json", f"there is no folder {tmp_path / 'new'}; make it, or choose another place"),
    ):
        with pytest.raises(UserError) as error:
            check_output("--out", path)
        assert str(error.value).startswith(f"--out {path}: {said}")


@pytest.mark.skipif(sys.platform == "win32", reason="other words")
@pytest.mark.parametrize(
    ("command", "flags", "flag"),
    [
        ("trit.measure.roofline", "--json {folder}", "--json"),
        ("trit.measure.roofline", "--json {file}/x", "--json"),
        ("trit.measure.perplexity.held_out", "--out {folder}", "--out"),
        ("trit.measure.perplexity.command", "--json {folder}", "--json"),
        ("trit.measure.heads", "-c {folder}", "--csv-output"),
        ("trit.measure.heads", "--stats-dir {file}", "--stats-dir"),
        ("trit.measure.committed.token_profile", "--out {file}", "--out"),
        ("trit.measure.committed.end_to_end", "--out {file}", "--out"),
        ("trit.tune.command", "--out {folder}", "--out"),
        ("trit.tune.codegen.command", "lookup --tier avx2 --outdir {file}", "--outdir"),
        ("trit.convert.from_random", "--shape story --outfile {file}/x.gguf", "--outfile"),
        # Only a flag that names a folder makes one.
        ("trit.convert.from_random", "--shape story --outfile {folder}/new/x.gguf", "--outfile"),
        ("trit.measure.speed.command", "-m {file} --csv {folder}/a/b/c.csv", "--csv"),
        ("trit.measure.perplexity.command", "--save-logits {file}", "--save-logits"),
        ("trit.measure.perplexity.command", "--csv-output {folder}/new/x.csv", "--csv-output"),
        ("trit.measure.roofline", "--json {folder}/new/x", "--json"),
        ("trit.measure.heads", "-c {folder}/new/x.csv", "--csv-output"),
        ("trit.tune.command", "--plot {folder}/new/x.png", "--plot"),
    ],
)
def test_commands_look_at_it_first(
    command: str,
    flags: str,
    flag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module(command)
    if command == "trit.measure.heads":
        monkeypatch.setattr(module, "_bench_dir", lambda given: tmp_path)
    (tmp_path / "file").touch()
    words = [word.format(folder=tmp_path, file=tmp_path / "file") for word in flags.split()]
    assert run_main(module.main, words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {flag} {tmp_path}") and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
