# SPDX-License-Identifier: MIT
"""SentencePiece-style vocabularies and byte-level splits, by hand: what is read, and what is another function."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType

from trit.base.errors import UserError
from trit.convert import pretokenizers, spm
from trit.convert.pretokenizers import pre_tokenizer, steps
from trit.convert.spm import BYTE_TOKENS, FIRST_NOTE, PREPEND, REPLACE_SPACES, SPACE, from_json, from_model
from trit.convert.tokenizer import _with_added

PATH = Path("tokenizer.json")
WORDS = ["<unk>", "<s>", "a", "b", "ab", "abb"]
VOCAB = {text: i for i, text in enumerate([*WORDS, *BYTE_TOKENS])}
MERGES = ["a b", ["ab", "b"]]
METASPACE = {"type": "Metaspace", "replacement": SPACE, "split": False}


def description(**changes: Any) -> dict[str, Any]:
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "merges": MERGES}
    top = {key: changes.pop(key) for key in ("normalizer", "pre_tokenizer") if key in changes}
    return {"normalizer": REPLACE_SPACES, "pre_tokenizer": None, **top, "model": model | changes}


def test_what_is_one() -> None:
    assert spm.is_sentencepiece(description())
    for other in (description(byte_fallback=False), description(type="Unigram"), {}, {"model": None}):
        assert not spm.is_sentencepiece(other)


def test_scores_and_types() -> None:
    pieces = from_json(PATH, description(), VOCAB | {"far": 264}, {1})
    assert pieces.tokens == [*WORDS, *BYTE_TOKENS, "", "", "far"]
    assert pieces.scores == [-3.0, -3.0, -3.0, -3.0, 0.0, -1.0, *[-3.0] * 259]
    kinds = [TokenType.UNKNOWN, *[TokenType.NORMAL] * 5, *[TokenType.BYTE] * 256, TokenType.UNUSED, TokenType.UNUSED]
    assert pieces.types == [*kinds, TokenType.NORMAL] and pieces.notes == [] and pieces.space_prefix is False
    assert from_json(PATH, description(unk_token=None), VOCAB, set()).types[0] == TokenType.NORMAL


@pytest.mark.parametrize(
    ("normalizer", "splitter", "prefix", "notes"),
    [
        (REPLACE_SPACES, None, False, []),
        ({"type": "Sequence", "normalizers": [PREPEND, REPLACE_SPACES]}, None, True, []),
        (REPLACE_SPACES, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}, False, []),
        (None, METASPACE | {"prepend_scheme": "first"}, True, [FIRST_NOTE]),
        (None, METASPACE | {"prepend_scheme": "never"}, False, []),
        (None, METASPACE, True, [FIRST_NOTE]),
        (None, METASPACE | {"add_prefix_space": False}, False, []),
    ],
)  # fmt: skip
def test_spaces(normalizer: Any, splitter: Any, prefix: bool, notes: list[str]) -> None:
    pieces = from_json(PATH, description(normalizer=normalizer, pre_tokenizer=splitter), VOCAB, {1})
    assert pieces.space_prefix is prefix and pieces.notes == notes


@pytest.mark.parametrize(
    ("normalizer", "splitter"),
    [
        (None, None),
        ({"type": "Sequence", "normalizers": [REPLACE_SPACES, PREPEND]}, None),
        ({"type": "NFKC"}, None),
        (REPLACE_SPACES, {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}),
        (REPLACE_SPACES, {"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithPrevious"}),
        (REPLACE_SPACES, METASPACE),
        (None, {"type": "Metaspace", "replacement": SPACE}),
        (None, METASPACE | {"split": True}),
        (None, METASPACE | {"replacement": "_"}),
    ],
)
def test_other_spaces(normalizer: Any, splitter: Any) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: prepares text in a way that the engine does not"):
        from_json(PATH, description(normalizer=normalizer, pre_tokenizer=splitter), VOCAB, {1})


@pytest.mark.parametrize(
    ("merges", "more", "added", "said"),
    [
        (["a b", "ab b", "a bb"], ["bb"], {1}, "no merge makes 'bb' of 'b' and 'b'"),
        (["a b"], [], {1}, "no merge makes 'abb' of 'ab' and 'b'"),
        (["a b", "ab b", "b b"], ["bb"], {1}, "no merge makes 'abb' of 'a' and 'bb'"),
        (["a b", "ab b", "a b"], [], {1}, "the merges that make 'ab' are apart"),
        (["a b", "ab b", "a b"], [], {1, 4}, None),
        (["a b", "ab b"], [], {1}, None),
        # Runs of one letter may grow in any order.
        (["a b", "b b", "ab b", "a bb", "b bb", "bb b", "b b"], ["bb", "bbb"], {1}, None),
        # A part that is no token cannot be joined.
        (["a b", "ab b"], ["zzq"], {1, 262}, None),
        (["a b", "ab b"], ["xy"], {1}, "no merge makes 'xy' of 'x' and 'y'"),
    ],
)
def test_merges(merges: list[str], more: list[str], added: set[int], said: str | None) -> None:
    vocab = VOCAB | {text: len(VOCAB) + i for i, text in enumerate(more)}
    if said is None:
        assert from_json(PATH, description(merges=merges), vocab, added).tokens == [*vocab]
    else:
        with pytest.raises(UserError, match=said):
            from_json(PATH, description(merges=merges), vocab, added)


@pytest.mark.parametrize("byte", [0, 10, 255])
def test_a_byte_that_is_missing(byte: int) -> None:
    vocab = {text: i for text, i in VOCAB.items() if text != BYTE_TOKENS[byte]}
    with pytest.raises(UserError, match=f"has byte_fallback but no token <0x{byte:02X}>"):
        from_json(PATH, description(), vocab, {1})


# --- SentencePiece's own file


def field(number: int, value: bytes | int | float) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def piece(text: str, score: float, kind: int | None = None) -> bytes:
    return field(1, field(1, text.encode()) + field(2, score) + (b"" if kind is None else field(3, kind)))


ONES = piece("<unk>", 0.0, 2) + piece("é" * 100, -1.5) + field(1, field(1, b"x"))
TRAINER, KEEPS_SPACES = field(2, field(3, 2)), field(3, field(4, 0))


def test_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    # Fields of eight bytes, large numbers and numbers of fields that nobody knows are stepped over.
    odd = varint(9 << 3 | 1) + bytes(8) + field(1000, 1 << 63) + field(10, b"self-test")
    path.write_bytes(ONES + odd + TRAINER + KEEPS_SPACES)
    found = from_model(path)
    assert found.tokens == ["<unk>", "é" * 100, "x"] and found.scores == [0.0, -1.5, 0.0]
    assert found.types == [TokenType.UNKNOWN, TokenType.NORMAL, TokenType.NORMAL] and found.space_prefix is True
    path.write_bytes(ONES + TRAINER + field(3, field(4, 0) + field(3, 0)))
    assert from_model(path).space_prefix is False


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TRAINER + KEEPS_SPACES, "is no BPE model"),
        (ONES + KEEPS_SPACES, "is no BPE model"),
        (ONES + field(2, field(3, 1)) + KEEPS_SPACES, "is no BPE model"),
        (ONES + TRAINER, "removes repeated spaces"),
        (ONES + TRAINER + field(3, field(4, 1)), "removes repeated spaces"),
        (ONES + TRAINER + field(3, field(4, 0) + field(2, b"x")), "normalises text"),
        (ONES + b"\x80", r"not a whole SentencePiece model \(a number runs past the end\)"),
        (ONES + varint(9 << 3) + b"\x80" * 10 + b"\1", r".*\(a number runs past the end\)"),
        (ONES + varint(9 << 3 | 3), r".*\(field kind 3\)"),
        (ONES + varint(9 << 3 | 2) + b"\5abcd", r".*\(a field runs past the end\)"),
        (ONES + varint(9 << 3 | 1) + bytes(7), r".*\(a field runs past the end\)"),
        (ONES + field(1, field(3, 1)), "not a whole SentencePiece model"),
        (ONES + piece("y", 0.0, 77), "not a whole SentencePiece model"),
        (ONES + field(1, field(1, b"\xff")), "not a whole SentencePiece model"),
    ],
)
def test_model_files_that_are_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(UserError, match=rf"tokenizer\.model: {said}"):
        from_model(tmp_path / "tokenizer.model")


def test_tokens_beside_a_model_file(tmp_path: Path) -> None:
    """From both files, by their ids; special ones are control tokens, and one that is there already is left."""

    def added(**files: Any) -> spm.Pieces:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return _with_added(tmp_path, spm.Pieces(["a", "b"], [0.0, -1.0], [TokenType.NORMAL] * 2, True, []))

    assert added().tokens == ["a", "b"]
    decoder = {
        "4": {"content": "<z>", "special": False},
        "1": {"content": "b", "special": True},
        "2": {"content": "<x>", "special": True},
    }
    found = added(added_tokens={"<y>": 3}, tokenizer_config={"added_tokens_decoder": decoder})
    assert found.tokens == ["a", "b", "<x>", "<y>", "<z>"] and found.scores == [0.0, -1.0, 0.0, 0.0, 0.0]
    kinds = [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.USER_DEFINED]
    assert found.types == [TokenType.NORMAL, TokenType.NORMAL, *kinds]
    assert added(added_tokens={}, tokenizer_config={"added_tokens_decoder": None}).tokens == ["a", "b"]
    with pytest.raises(UserError, match="added token '<x>' has id 1, expected 2"):
        added(added_tokens={"<x>": 1})


# --- byte-level splits


def split(regex: str, **more: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False, **more}


PLAIN, OWN = ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": own} for own in (False, True))
LLAMA, QWEN, QWEN_35 = map(split, (pretokenizers.LLAMA_3, pretokenizers.QWEN_2, pretokenizers.QWEN_3_5))
ONE_DIGIT, DIGITS = ({"type": "Digits", "individual_digits": alone} for alone in (True, False))
PUNCTUATION = {"type": "Punctuation", "behavior": "Contiguous"}


@pytest.mark.parametrize(
    ("parts", "ignores", "name"),
    [
        ([OWN], False, "gpt-2"),
        ([{"type": "ByteLevel", "add_prefix_space": False}], False, "gpt-2"),
        ([LLAMA, PLAIN], True, "llama-bpe"),
        ([LLAMA, PLAIN], False, "dbrx"),
        ([QWEN, PLAIN], False, "qwen2"),
        ([QWEN_35, PLAIN], False, "qwen35"),
        ([ONE_DIGIT, OWN], False, "smollm"),
        ([split(r"\p{N}"), OWN], False, "smollm"),
        ([PUNCTUATION, OWN, DIGITS, split("[0-9][0-9][0-9]")], False, "falcon"),
        ([OWN], True, None),
        ([QWEN, PLAIN], True, None),
        ([DIGITS, OWN], False, None),
        ([LLAMA, OWN], True, None),
        ([split(pretokenizers.LLAMA_3, invert=True), PLAIN], False, None),
        ([split(pretokenizers.LLAMA_3, behavior="Removed"), PLAIN], False, None),
        ([PLAIN], False, None),
        ([LLAMA], False, None),
        ([OWN, OWN], False, None),
        ([{**OWN, "add_prefix_space": True}], False, None),
        ([{**PUNCTUATION, "behavior": "Isolated"}, OWN], False, None),
    ],
)
def test_splits(parts: list[dict[str, Any]], ignores: bool, name: str | None) -> None:
    told = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}, "model": {"ignore_merges": ignores}}
    if name is None:
        with pytest.raises(
            UserError, match=r"tokenizer\.json: its pre_tokenizer is (none that is known|not byte-level)"
        ):
            pre_tokenizer(PATH, told)
        return
    assert pre_tokenizer(PATH, told) == (name, [])
    assert pre_tokenizer(PATH, told | {"normalizer": {"type": "NFC"}}) == (name, [pretokenizers.NFC_NOTE])
    with pytest.raises(UserError, match="has a NFD normalizer, which the engine does not run"):
        pre_tokenizer(PATH, told | {"normalizer": {"type": "NFD"}})


def test_sequences_in_sequences() -> None:
    inner = {"type": "Sequence", "pretokenizers": [OWN, PLAIN]}
    assert steps({"type": "Sequence", "pretokenizers": [LLAMA, inner]}, "pretokenizers") == [LLAMA, OWN, PLAIN]
    assert steps(None, "x") == [] and steps(OWN, "x") == [OWN]
