# SPDX-License-Identifier: MIT
"""Every key of every JSON file of a folder, with every other type, absent or huge: converted, or a sentence that says
which file and key.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import EXIT_OK, EXIT_USAGE, run_main
from trit.convert import vocabulary_check
from trit.convert.command import main

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"
ABSENT = object()
VALUES = (ABSENT, None, True, 0, -1, 7, 2**31, 1.5, 1e300, "", "1", "\0", "\ud800", [], [[1]], {}, {"a": 1})
# Keys that the seed's files have not, and that some reader uses.
MORE: dict[str, dict[str, Any]] = {
    "config.json": {
        "rope_scaling": {"rope_type": "default"},
        "rope_theta": 10000.0,
        "bos_token_id": 0,
        "pad_token_id": 0,
        "head_dim": 4,
        "layer_types": ["full_attention"],
        "_name_or_path": "somebody/some-model",
        "model_type": "bitnet",
    },
    "generation_config.json": {"top_k": 40, "top_p": 0.9, "temperature": 0.7, "mirostat": 0, "sequence": "top_k"},
    "tokenizer_config.json": {
        "bos_token": {"content": "<end>"},
        "add_eos_token": False,
        "added_tokens_decoder": {"258": {"content": "<end>", "special": True}},
    },
    "special_tokens_map.json": {"unk_token": "<end>", "pad_token": {"content": "<end>"}},
    "added_tokens.json": {"<end>": 258},
    "chat_template.json": {"chat_template": "{{ messages[0]['content'] }}"},
    "tokenizer.json": {},
}
LONGEST_S = 2.0


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where the values of a file are: of a long table or list the first."""
    yield path
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children)[:24]:
        yield from paths(child, (*path, key))


def mutated(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """The value with another one at a place, or with nothing there."""
    if not path:
        return new
    head, *rest = path
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    if not rest and new is ABSENT:
        del copied[head]
    else:
        copied[head] = mutated(value[head], tuple(rest), new)
    return copied


def whole(name: str) -> Any:
    path = SEED / name
    return {**(json.loads(path.read_text()) if path.is_file() else {}), **MORE[name]}


CASES = [(name, path) for name in MORE for path in paths(whole(name))]


def cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with all of these files; the engine's view of its vocabulary has tests of its own."""
    monkeypatch.setattr(vocabulary_check.check, "__defaults__", (tmp_path / "nowhere", 1.0))
    directory = Path(shutil.copytree(SEED, tmp_path / "model"))
    for name in MORE:
        (directory / name).write_text(json.dumps(whole(name)))
    return directory


def convert(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and what is said."""
    outfile = folder.parent / "out.gguf"
    begun = cpu()
    code = run_main(main, [str(folder), "--outtype", "f16", "--outfile", str(outfile)])
    assert cpu() - begun < LONGEST_S
    assert outfile.exists() == (code == EXIT_OK)
    outfile.unlink(missing_ok=True)
    assert {path.name for path in folder.parent.iterdir()} <= {"model"}
    said = capsys.readouterr()
    return code, said.err if code else said.out


def test_the_folder_itself_is_converted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(folder, capsys)[0] == EXIT_OK


@pytest.mark.parametrize(("name", "path"), CASES, ids=[f"{name}:{'.'.join(map(str, path))}" for name, path in CASES])
def test_every_value(name: str, path: tuple[str | int, ...], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = whole(name)
    for new in VALUES:
        if not path and new is ABSENT:
            continue
        text = json.dumps(mutated(original, path, new))
        (folder / name).write_text(text)
        code, said = convert(folder, capsys)
        assert code in (EXIT_OK, EXIT_USAGE), (text, said)
        if code:
            assert said.count("\n") == 1 and len(said) < 700, said
            assert "has not the type or form it must have" not in said, (path, new, said)
            # The file, or what is made of its value: a token's id, a size that tensors have not.
            key = next((key for key in reversed(path) if isinstance(key, str)), "")
            assert name in said or key in said, (path, new, said)


# A file -> the file and key without which it is read: old files count where the new ones say nothing.
BEHIND = {
    "special_tokens_map.json": ("tokenizer_config.json", "added_tokens_decoder"),
    "chat_template.json": ("tokenizer_config.json", "chat_template"),
}


@pytest.mark.parametrize("name", sorted(MORE.keys() - {"added_tokens.json"}))
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "cp1252"])
def test_other_encodings(name: str, encoding: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but UTF-8 are refused by name. UTF-16 without its mark has zero bytes, which no JSON has."""
    if name in BEHIND:
        file, key = BEHIND[name]
        (folder / file).write_text(json.dumps(mutated(whole(file), (key,), ABSENT)))
    text = json.dumps(whole(name))[:-1] + ', "x": "caf\u00e9"}'
    (folder / name).write_bytes(text.encode(encoding))
    code, said = convert(folder, capsys)
    assert code == EXIT_USAGE and f"error: {folder / name}: " in said
    assert encoding.upper()[:6] in said or "is not UTF-8 text" in said


@pytest.mark.parametrize("name", [*MORE, "chat_template.jinja"])
def test_a_byte_order_mark_is_skipped(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(whole(name)) if name in MORE else "{{ messages[0]['content'] }}"
    (folder / name).write_text(text, encoding="utf-8-sig")
    assert convert(folder, capsys)[0] == EXIT_OK


@pytest.mark.parametrize("content", [b"caf\xe9", "caf\u00e9".encode("utf-16"), b"a\0b"])
def test_templates_that_are_no_text(content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "chat_template.jinja").write_bytes(content)
    code, said = convert(folder, capsys)
    assert code == EXIT_USAGE and "chat_template.jinja: " in said


@pytest.mark.parametrize("card", [b"---\nlicense: caf\xe9\n---\n", b"---\nlicense: {a: [1]}\ntags: 5\n---\n"])
def test_model_cards(card: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").write_bytes(card)
    code, said = convert(folder, capsys)
    assert code == EXIT_OK or "README.md: " in said
