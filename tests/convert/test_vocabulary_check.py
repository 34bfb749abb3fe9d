# SPDX-License-Identifier: MIT
"""What a folder's tokenizer and chat template say is what the engine does, or it is told: on a tiny vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from trit.base.errors import TritError, UserError
from trit.convert import from_gguf
from trit.convert.read_back import tokenizer_keys, verify_vocabulary
from trit.convert.tokenizer import Vocabulary, load_tokenizer
from trit.convert.vocabulary_check import SHARED, Checked, _overlaps, check, write_metadata
from trit.engine import vocabulary as engine
from trit.gguf.encodings import ENCODINGS

MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("i", "n"), ("a", "n"), ("an", "d"), ("1", "2")]
BOS, EOS, ROWS = 0, 1, 400
CONFIG = {"bos_token_id": BOS, "eos_token_id": EOS}
Edit = Callable[[dict[str, Any]], Any]


def tokenizer(*added: AddedToken, around: str = "<bos> $A") -> Tokenizer:
    """Byte-level BPE with a handful of merges; <bos> and <fin> are its first tokens."""
    texts = ["<bos>", "<fin>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    texts += dict.fromkeys(left + right for left, right in MERGES)
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<bos>", "<fin>"])
    made.add_tokens(list(added))
    names = [name for name in around.split() if name != "$A"]
    made.post_processor = TemplateProcessing(
        single=around, special_tokens=[(name, made.token_to_id(name)) for name in dict.fromkeys(names)]
    )
    return made


def special(text: str, **how: bool) -> AddedToken:
    return AddedToken(text, special=True, normalized=False, **how)


def load(folder: Path, made: Tokenizer, edit: Edit | None = None, embeds: bool = False, **files: Any) -> Vocabulary:
    """Save a tokenizer, with tokenizer_config.json and generation_config.json where they are given, and read it."""
    description = json.loads(made.to_str())
    if edit:
        edit(description)
    (folder / "tokenizer.json").write_text(json.dumps(description))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load_tokenizer(folder, CONFIG, ROWS, embeds)


def checked(vocabulary: Vocabulary, bin_dir: Path, timeout_s: float = engine.LONGEST_S) -> Checked:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        return check(Path("folder"), vocabulary, "llama", vocabulary.write, path, bin_dir, timeout_s)


def asked(vocabulary: Vocabulary, folder: Path, engine_bin: Path, *orders: Any) -> engine.Answers:
    path = folder / "vocabulary.gguf"
    write_metadata(path, "llama", vocabulary.write)
    return engine.ask(path, orders, engine_bin)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", [None, 7])
def test_padding_and_truncation_are_ignored(side: str, length: int | None, tmp_path: Path) -> None:
    made = tokenizer()
    made.enable_padding(direction=side, pad_id=EOS, pad_token="<fin>", length=length, pad_to_multiple_of=8)
    made.enable_truncation(2)
    vocabulary = load(tmp_path, made)
    assert (vocabulary.front, vocabulary.back, vocabulary.stops, vocabulary.notes) == ([BOS], [], [EOS], [])


@pytest.mark.parametrize(
    ("around", "front", "notes"),
    [
        ("$A", [], []),
        ("<bos> $A <fin>", ["<bos>"], ["prompts get no <fin> behind them"]),
        ("<x> $A", ["<x>"], ["the file's bos is <x>"]),
        ("<bos> <x> <y> $A", ["<bos>"], ["begin prompts with <x> <y>"]),
    ],
)
def test_what_stands_around_a_text(around: str, front: list[str], notes: list[str], tmp_path: Path) -> None:
    made = tokenizer(special("<x>"), special("<y>"), around=around)
    vocabulary = load(tmp_path, made, tokenizer_config={"bos_token": "<bos>", "eos_token": "<fin>"})
    assert vocabulary.front == [made.token_to_id(text) for text in front] and vocabulary.back == []
    assert len(vocabulary.notes) == len(notes)
    assert all(part in note for part, note in zip(notes, vocabulary.notes, strict=True))


@pytest.mark.parametrize(
    ("says", "embeds", "adds", "notes"),
    [
        ({"add_eos_token": True}, False, (True, False), 1),
        ({"add_eos_token": True}, True, (True, True), 0),
        ({"add_bos_token": False}, False, (False, False), 1),
        ({"add_bos_token": True, "add_eos_token": False}, True, (True, False), 0),
    ],
)
def test_flags_of_tokenizer_config(
    says: dict[str, bool], embeds: bool, adds: tuple[bool, bool], notes: int, tmp_path: Path
) -> None:
    """A prompt that ends in eos has nothing to follow it; an embedding model's text needs its end."""
    vocabulary = load(tmp_path, tokenizer(), embeds=embeds, tokenizer_config=says)
    assert (vocabulary.adds["bos"], vocabulary.adds["eos"]) == adds and len(vocabulary.notes) == notes


def test_a_token_that_only_the_post_processor_names(tmp_path: Path) -> None:
    def rename(description: dict[str, Any], row: int) -> None:
        description["post_processor"]["special_tokens"]["<bos>"]["ids"] = [row]

    vocabulary = load(tmp_path, tokenizer(), lambda description: rename(description, ROWS - 1))
    assert vocabulary.front == [ROWS - 1] and vocabulary.types[ROWS - 1] == TokenType.UNUSED
    with pytest.raises(UserError, match=f"token {ROWS} is to be added to texts, the model has {ROWS} tokens"):
        load(tmp_path, tokenizer(), lambda description: rename(description, ROWS))


def test_a_flag_for_a_token_that_no_file_names(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    (tmp_path / "tokenizer.json").write_text(tokenizer(around="$A").to_str())
    with pytest.raises(UserError, match="add_bos_token is true, but no file names a bos_token"):
        load_tokenizer(tmp_path, {"eos_token_id": EOS}, ROWS)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["model"]["vocab"].update({"twin": 5}), "token 5 is both"),
        (lambda d: d["model"]["vocab"].update({"far": 1 << 31}), f"token {1 << 31} .'far'., but .* vocab_size {ROWS}"),
        (lambda d: d["model"].update(end_of_word_suffix="@@"), "marks pieces of words .end_of_word_suffix '@@'."),
        (lambda d: d["model"].update(continuing_subword_prefix="++"), "continuing_subword_prefix"),
        (lambda d: d.update(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}), "Lowercase"),
    ],
)
def test_refusals(edit: Edit, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, tokenizer(), edit)


def test_names_of_unused_rows_are_free(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(special(f"[PAD{ROWS - 1}]"), special(f"[[PAD{ROWS - 1}]]")))
    assert len(set(vocabulary.tokens)) == len(vocabulary.tokens) == ROWS


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.update(normalizer={"type": "Sequence", "normalizers": []}),
        lambda d: d.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [d["pre_tokenizer"]]}),
        lambda d: d.update(normalizer={"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]}),
    ],
)
def test_sequences_of_nothing_are_nothing(edit: Edit, tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(), edit)
    assert vocabulary.pre == "gpt-2" and vocabulary.notes == []


def test_dropout_is_left_out(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(), lambda d: d["model"].update(dropout=0.9))
    assert vocabulary.reading and vocabulary.reading.encode("the the the").tokens[-1] == "\u0120the"
    assert "dropout" in vocabulary.notes[0]


def test_ends_that_are_no_tokens_are_told(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(), generation_config={"eos_token_id": [EOS, ROWS, -1]})
    assert vocabulary.stops == [EOS]
    assert [note.split()[1] for note in vocabulary.notes] == [str(ROWS), "-1"]


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer())
    found = checked(vocabulary, tmp_path)
    assert found.verified == "the vocabulary is not checked against the engine, which is not built here"
    assert found.keys["tokenizer.ggml.tokens"] == vocabulary.tokens


def test_read_back_compares_the_vocabulary(tmp_path: Path) -> None:
    vocabulary, path = load(tmp_path, tokenizer()), tmp_path / "m.gguf"
    write_metadata(path, "llama", vocabulary.write)
    keys = tokenizer_keys(path)
    verify_vocabulary(path, keys)
    for changed in ({**keys, "tokenizer.ggml.eos_token_id": 7}, {k: v for k, v in keys.items() if "merges" not in k}):
        with pytest.raises(TritError, match=r"tokenizer\.ggml\.(eos_token_id|merges): reads back otherwise"):
            verify_vocabulary(path, changed)


def test_every_end_ends(engine_bin: Path, tmp_path: Path) -> None:
    ends = [f"<stop {i}>" for i in range(6)]
    made = tokenizer(*map(special, ends), special("</s>"))
    ids = [EOS, *(made.token_to_id(text) for text in ends)]
    vocabulary = load(tmp_path, made, generation_config={"eos_token_id": ids})
    also = made.token_to_id("</s>")
    assert asked(vocabulary, tmp_path, engine_bin).stops == {*ids, also}
    (note,) = checked(vocabulary, engine_bin).notes
    assert note.startswith(f"the engine also ends at </s> ({also})")


def test_added_tokens_take_spaces(engine_bin: Path, tmp_path: Path) -> None:
    """As tokenizers does it, but for spaces beyond ASCII, which are told."""
    made = tokenizer(special("<left>", lstrip=True), special("<right>", rstrip=True), special("<both>"))
    vocabulary = load(tmp_path, made)
    texts = ["one \t<left> the", "one <right> \n the", "<left>  <right>  <left>", "the <both> the"]
    said = asked(vocabulary, tmp_path, engine_bin, *texts)
    assert said.values == [made.encode(text, add_special_tokens=False).ids for text in texts]
    notes = checked(vocabulary, engine_bin).notes
    assert [note.split()[0] for note in notes] == ["<left>", "<right>"]


def test_what_the_engine_cannot_hold_is_told_by_name(engine_bin: Path, tmp_path: Path) -> None:
    made = tokenizer(special("<word>", single_word=True), special("ab|"), special("|cd|"))
    found = checked(load(tmp_path, made), engine_bin)
    assert [note.partition(" beside")[0] for note in found.notes] == ["<word>", "added tokens that share letters"]
    assert "'ab|cd|' is " in found.notes[1]


def test_tokens_in_every_neighbourhood(engine_bin: Path, tmp_path: Path) -> None:
    made = tokenizer(
        special("<x>"),
        AddedToken("user", normalized=True),
        AddedToken("<x>y", normalized=False),
        around="<bos> $A <fin>",
    )
    vocabulary = load(tmp_path, made, embeds=True)
    found = checked(vocabulary, engine_bin)
    same, total = (int(word.replace(",", "")) for word in found.verified.split()[:3:2])
    assert found.notes == [] and same == total > 100
    assert asked(vocabulary, tmp_path, engine_bin, ["the"]).values == [made.encode("the").ids]


def test_another_function_is_noticed(engine_bin: Path, tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer())
    (note,) = checked(replace(vocabulary, pre="smollm"), engine_bin).notes
    assert "texts get other tokens" in note and "in tokenizer.json" in note
    vocabulary.special.merges = vocabulary.special.merges[:1]
    wrong = replace(vocabulary, tokens=[text.upper() if len(text) == 1 else text for text in vocabulary.tokens])
    with pytest.raises(
        UserError, match=r"folder: the engine (does not load this vocabulary|cannot run this tokenizer)"
    ):
        checked(wrong, engine_bin)


def test_what_converts_also_loads(engine_bin: Path, tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer())
    twins = replace(vocabulary, tokens=[*vocabulary.tokens[:-1], vocabulary.tokens[-2]])
    with pytest.raises(UserError, match="folder: the engine does not load this vocabulary"):
        checked(twins, engine_bin)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None),
        ("{{ messages[-1].content | upside_down }}", "upside_down"),
        ("{% import 'x' as y %}{{ messages[-1].content }}", "import"),
        ("{{ messages[-1].role }}", "the prompt does not hold the question"),
        ("{% if messages|length > 2 %}{{ nothing() }}{% endif %}{{ messages[-1].content }}", "a second question"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
         "{{ messages[-1].content }}", None),
    ],
)  # fmt: skip
def test_chat_templates(template: str, told: str | None, engine_bin: Path, tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(), tokenizer_config={"chat_template": template})
    warnings = checked(vocabulary, engine_bin).warnings
    assert len(warnings) == (told is not None)
    for warning in warnings:
        assert warning.startswith("the engine cannot run the chat template for ") and told and told in warning


def test_a_template_without_end(engine_bin: Path, tmp_path: Path) -> None:
    endless = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
    vocabulary = load(tmp_path, tokenizer(), tokenizer_config={"chat_template": endless})
    found = checked(vocabulary, engine_bin, timeout_s=2)
    assert len(found.warnings) == 1 and "texts have the tokens" in found.verified


def test_program_says_what_it_cannot_read(engine_bin: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="the engine does not load this vocabulary"):
        engine.ask(tmp_path / "x.gguf", [], engine_bin)


def test_a_gguf_file_with_twins_is_refused(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    """Before any weight is written; nothing is left."""
    tokens = tokenizer_keys(story_gguf)["tokenizer.ggml.tokens"]
    one, other = [text for text in tokens if text.isascii() and len(text) == 7][:2]
    raw, twins = story_gguf.read_bytes(), tmp_path / "twins.gguf"
    length = (7).to_bytes(8, "little")
    twins.write_bytes(raw.replace(length + one.encode(), length + other.encode(), 1))
    with pytest.raises(UserError, match=r"twins\.gguf: tokenizer\.ggml\.tokens has the token .* twice"):
        from_gguf.convert(twins, tmp_path / "out.gguf", from_gguf.Options(ENCODINGS["tq2_0"]), progress=False)
    assert list(tmp_path.iterdir()) == [twins]


def test_overlaps_of_long_tokens_cost_no_memory() -> None:
    assert list(_overlaps(["<ab", "abc>"])) == ["<abc>"]
    assert next(_overlaps(["x" + "a" * SHARED, "a" * SHARED + "y"])).endswith("y")
    long = ["<" + "a" * 1_000_000, "a" * 1_000_000 + ">"]
    assert all(len(text) < 3_000_000 for text in _overlaps(long))
