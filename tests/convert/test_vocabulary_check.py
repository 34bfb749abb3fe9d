# SPDX-License-Identifier: MIT
"""What a folder's tokenizer and chat template say is what the engine does, or it is told: on a tiny vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tests.support.tiny_checkpoints.sentencepiece_vocabulary import Spm, model_file
from trit.base.errors import TritError, UserError
from trit.convert import from_gguf
from trit.convert.pretokenizers import NFC_NOTE
from trit.convert.read_back import tokenizer_keys, verify_vocabulary
from trit.convert.spm import BYTE_TOKENS, SPACE
from trit.convert.tokenizer import Vocabulary, load_tokenizer
from trit.convert.vocabulary_check import SHARED, Checked, _overlaps, check, write_metadata
from trit.engine import vocabulary as engine
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header

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


def load(
    folder: Path,
    made: Tokenizer,
    edit: Edit | None = None,
    embeds: bool = False,
    more: dict[str, Any] | None = None,
    **files: Any,
) -> Vocabulary:
    """Save a tokenizer, with tokenizer_config.json and generation_config.json where they are given, and read it."""
    description = json.loads(made.to_str())
    if edit:
        edit(description)
    (folder / "tokenizer.json").write_text(json.dumps(description))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load_tokenizer(folder, {**CONFIG, **(more or {})}, ROWS, embeds)


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


def written(vocabulary: Vocabulary, folder: Path) -> dict[str, Any]:
    """The keys of a file that holds nothing else."""
    write_metadata(folder / "keys.gguf", "llama", vocabulary.write)
    metadata = read_raw_header(folder / "keys.gguf").metadata
    return {key.removeprefix("tokenizer."): value for key, value in metadata.items() if key != "general.architecture"}


def test_every_key_of_a_byte_level_vocabulary(tmp_path: Path) -> None:
    added = [special("<l>", lstrip=True), special("<r>", rstrip=True), AddedToken("word", normalized=True)]
    made = tokenizer(*added, special("<end>"))
    size, end = made.get_vocab_size(), made.token_to_id("<end>")
    names = {"bos_token": "<bos>", "eos_token": "<fin>", "chat_template": "{{ a }}"}
    ends = {"eos_token_id": [end, 5, 3]}
    ids = {"pad_token_id": 7, "unk_token_id": 9}
    found = written(load(tmp_path, made, more=ids, tokenizer_config=names, generation_config=ends), tmp_path)
    texts = {i: text for text, i in made.get_vocab().items()}
    assert found.pop("ggml.tokens") == [*(texts[i] for i in range(size)), *(f"[PAD{i}]" for i in range(size, ROWS))]
    kinds = [TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (size - 6) + [TokenType.CONTROL] * 2
    kinds += [TokenType.USER_DEFINED, TokenType.CONTROL] + [TokenType.UNUSED] * (ROWS - size)
    assert found.pop("ggml.token_type") == kinds
    left = made.token_to_id("<l>")
    assert found == {
        "ggml.model": "gpt2",
        "ggml.pre": "gpt-2",
        "ggml.merges": [f"{a} {b}" for a, b in MERGES],
        "ggml.bos_token_id": BOS,
        "ggml.unknown_token_id": 9,
        "ggml.padding_token_id": 7,
        "ggml.eos_token_id": EOS,
        "ggml.eot_token_id": end,
        "ggml.eom_token_id": 5,
        "ggml.eog_token_ids": [EOS, end, 5, 3],
        "ggml.lstrip_token_ids": [left],
        "ggml.rstrip_token_ids": [left + 1],
        "ggml.add_bos_token": True,
        "ggml.add_eos_token": False,
        "chat_template": "{{ a }}",
    }


def test_keys_are_left_out_where_nothing_is_to_be_said(tmp_path: Path) -> None:
    found = written(load(tmp_path, tokenizer(around="$A"), generation_config={"eos_token_id": [5, 6]}), tmp_path)
    ids = [found[f"ggml.{key}_token_id"] for key in ("eos", "eot", "eom")]
    assert ids == [5, 6, EOS]
    gone = {"eog_token_ids", "lstrip_token_ids", "rstrip_token_ids", "unknown_token_id", "padding_token_id", "scores"}
    assert not {f"ggml.{key}" for key in gone} & set(found) and "chat_template" not in found
    assert found["ggml.add_bos_token"] is False


def test_a_vocabulary_as_large_as_the_model(tmp_path: Path) -> None:
    """The last id is one less than the size; one row more is a padding row."""
    made = tokenizer()
    made.save(str(tmp_path / "tokenizer.json"))
    size = made.get_vocab_size()
    vocabulary = load_tokenizer(tmp_path, CONFIG, size)
    assert len(vocabulary.tokens) == size and TokenType.UNUSED not in vocabulary.types
    assert load_tokenizer(tmp_path, CONFIG, size + 1).tokens[size:] == [f"[PAD{size}]"]
    with pytest.raises(UserError, match=f"has token {size - 1} .*, but config.json says vocab_size {size - 1}"):
        load_tokenizer(tmp_path, CONFIG, size - 1)


def test_rows_between_tokens_are_unused(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(), lambda d: d["model"]["vocab"].update({"far": 390}))
    assert vocabulary.tokens[388:392] == ["[PAD388]", "[PAD389]", "far", "[PAD391]"]
    kinds = [TokenType.UNUSED, TokenType.UNUSED, TokenType.NORMAL, TokenType.UNUSED]
    assert vocabulary.types[388:392] == kinds


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(model={"type": "Unigram"}), "is a Unigram tokenizer; only BPE is supported"),
        (lambda d: d["model"].update(merges=[]), "has no merges, so it is not a BPE tokenizer"),
        (lambda d: d["model"].update(merges=[["q", "zz"]]), "cannot be read .*; download the file again"),
        (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "not byte-level without a prefix space"),
        (lambda d: d.update(pre_tokenizer=None), "not byte-level without a prefix space"),
        (lambda d: d["model"].update(ignore_merges=True), "it splits by .*, ignoring merges"),
    ],
)
def test_more_refusals(edit: Edit, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, tokenizer(), edit)


@pytest.mark.parametrize(
    ("says", "around", "embeds", "around_ids", "notes"),
    [
        ({}, "<bos> $A", False, ([BOS], []), []),
        ({"add_bos_token": True}, "$A", False, ([BOS], []), []),
        ({"add_bos_token": None}, "$A", False, ([], []), []),
        ({"add_bos_token": False}, "$A", False, ([], []), []),
        (
            {"add_bos_token": False},
            "<bos> $A",
            False,
            ([], []),
            ["prompts get no <bos> in front: tokenizer_config.json's add_bos_token is false"],
        ),
        (
            {"add_eos_token": True},
            "$A",
            False,
            ([], []),
            ["prompts get no <fin> behind them, though the tokenizer adds it: nothing would follow it"],
        ),
        ({"add_eos_token": True}, "$A", True, ([], [EOS]), []),
        ({"add_eos_token": False}, "$A <fin>", True, ([], []), []),
        ({}, "$A <fin>", True, ([], [EOS]), []),
        ({}, "$A <x>", True, ([], ["<x>"]), []),
        ({}, "$A <fin> <x>", True, ([], ["<x>"]), ["the engine puts <x> behind a text, tokenizer.json <fin> <x>"]),
        (
            {},
            "<bos> <x> $A",
            True,
            ([BOS], []),
            ["the engine puts <bos> in front of a prompt, tokenizer.json <bos> <x>: begin prompts with <x>"],
        ),
        (
            {},
            "<x> $A",
            False,
            (["<x>"], []),
            ["the file's bos is <x>, which tokenizer.json puts in front, not bos_token"],
        ),
    ],
)
def test_what_is_put_around_texts(
    says: dict[str, Any],
    around: str,
    embeds: bool,
    around_ids: tuple[list[Any], list[Any]],
    notes: list[str],
    tmp_path: Path,
) -> None:
    made = tokenizer(special("<x>"), around=around)
    names = {"bos_token": "<bos>", "eos_token": "<fin>"}
    vocabulary = load(tmp_path, made, embeds=embeds, tokenizer_config=names | says)
    front, back = ([made.token_to_id(i) if isinstance(i, str) else i for i in ids] for ids in around_ids)
    assert (vocabulary.front, vocabulary.back, vocabulary.notes) == (front, back, notes)
    assert sorted(vocabulary.stops) == sorted({EOS, *back})


@pytest.mark.parametrize(
    ("config", "generation", "stops"),
    [
        ({"eos_token_id": 5}, None, [5]),
        ({"eos_token_id": [5, 4, 5]}, {}, [5, 4]),
        ({"eos_token_id": 5}, {"eos_token_id": [4, 5, 3]}, [4, 5, 3]),
        ({"eos_token_id": 0}, {"eos_token_id": None}, [0]),
        ({}, {"eos_token_id": ROWS - 1}, [ROWS - 1]),
        ({"eos_token_id": ROWS}, {}, None),
        ({}, {}, None),
    ],
)
def test_where_ends_come_from(
    config: dict[str, Any], generation: dict[str, Any] | None, stops: list[int] | None, tmp_path: Path
) -> None:
    """The tokenizer's eos first, then the files' in order, each once."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    if stops is None:
        with pytest.raises(UserError, match=r"no file names an eos_token_id that is a token; add it to config\.json"):
            load_tokenizer(tmp_path, config, ROWS)
    else:
        assert load_tokenizer(tmp_path, config, ROWS).stops == stops


def test_a_model_answers_unless_it_is_said(tmp_path: Path) -> None:
    tokenizer(around="$A <fin>").save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path, CONFIG, ROWS).back == [] and load_tokenizer(tmp_path, CONFIG, ROWS, True).back == [
        EOS
    ]


def test_a_template_of_its_own_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ 'é' }}", encoding="utf-8")
    assert load(tmp_path, tokenizer(), tokenizer_config={"chat_template": "other"}).templates == {
        "default": "{{ 'é' }}"
    }


def test_merges_are_written_as_two_texts(tmp_path: Path) -> None:
    """Of either form; byte-level text has no spaces, so that a part with one is never met and cannot be written."""

    def edit(description: dict[str, Any]) -> None:
        description["model"]["vocab"] |= {"t ": 300, "t h": 301, " h": 302}
        description["model"]["merges"] = [["t ", "h"], ["t", "h"], ["t", " h"], ["th", "e"]]

    assert load(tmp_path, tokenizer(), edit).merges == ["t h", "th e"]
    assert load(tmp_path, tokenizer(), lambda d: d["model"].update(merges=["t h", "th e"])).merges == ["t h", "th e"]


def test_an_interrupt_is_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(content: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trit.convert.tokenizer.Tokenizer", SimpleNamespace(from_str=interrupted))
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, tokenizer())


def test_the_trainer_s_reading_is_kept(tmp_path: Path) -> None:
    """With its normalizer, but for the one that a note tells."""
    made = tokenizer()
    made.normalizer = normalizers.NFC()
    vocabulary = load(tmp_path, made)
    assert vocabulary.reading and vocabulary.reading.normalizer is None and vocabulary.notes == [NFC_NOTE]
    vocabulary = load(tmp_path, tokenizer(), lambda d: d.update(normalizer={"type": "Sequence", "normalizers": []}))
    assert vocabulary.reading and vocabulary.reading.normalizer is not None


# --- SentencePiece-style vocabularies, by hand

PIECES = Spm(
    ["<unk>", "<s>", "</s>", *BYTE_TOKENS, "a", "b", SPACE, "ab", f"{SPACE}ab"],
    [0.0] * 259 + [-3.0, -3.0, -3.0, -1.0, -2.0],
    [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * 5,
)


def pieces_folder(folder: Path, merges: list[tuple[str, str]], **files: Any) -> Path:
    """A folder with a tokenizer.json over characters."""
    ids = {text: i for i, text in enumerate(PIECES.tokens)}
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.add_tokens([AddedToken("two words", normalized=True), AddedToken(f"{SPACE}x", normalized=True)])
    made.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_scores_of_a_tokenizer_json_are_its_order(tmp_path: Path) -> None:
    folder = pieces_folder(tmp_path, [("a", "b"), (SPACE, "ab")])
    vocabulary = load_tokenizer(folder, {"eos_token_id": 2}, 270)
    assert vocabulary.pre == "default" and vocabulary.notes == [] and vocabulary.pieces
    assert vocabulary.tokens[:264] == PIECES.tokens and vocabulary.tokens[264:] == [
        "two words", " x", *(f"[PAD{i}]" for i in range(266, 270))
    ]  # fmt: skip
    added = [TokenType.USER_DEFINED] * 2
    assert vocabulary.types == [*PIECES.types, *added, *[TokenType.UNUSED] * 4]
    found = written(vocabulary, tmp_path)
    scores = found["ggml.scores"]
    assert len(scores) == 270 and scores[262:264] == [0.0, -1.0] and scores[266:] == [0.0] * 4
    assert set(scores[:262]) == {-3.0} and "ggml.merges" not in found
    assert found["ggml.model"] == "llama" and found["ggml.add_space_prefix"] is True
    assert found["ggml.pre"] == "default"


def test_a_model_file_by_hand(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file(PIECES))
    vocabulary = load_tokenizer(tmp_path, {"eos_token_id": 2}, 265)
    assert vocabulary.tokens == [*PIECES.tokens, "[PAD264]"] and vocabulary.front == [1] and vocabulary.reading is None
    assert vocabulary.types == [*PIECES.types, TokenType.UNUSED] and vocabulary.notes == []
    assert vocabulary.pieces and vocabulary.pieces.scores == PIECES.scores and vocabulary.pieces.space_prefix
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    vocabulary = load_tokenizer(tmp_path, {"eos_token_id": [2, 999]}, 264)
    assert vocabulary.front == [] and [note.split()[0] for note in vocabulary.notes] == ["prompts", "eos_token_id"]
    with pytest.raises(UserError, match=r"tokenizer\.model: has token 263, but config\.json says vocab_size 263"):
        load_tokenizer(tmp_path, {"eos_token_id": 2}, 263)


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
    vocabulary = replace(vocabulary, merges=vocabulary.merges[:1])
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
