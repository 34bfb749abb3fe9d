# SPDX-License-Identifier: MIT
"""Every tokenizer that the converter accepts: its token ids in the compiled engine equal the tokenizers package's.

Vocabularies of the engine's source (LLaMA 2 and 3, GPT-2, Qwen 2, Falcon) and trained ones for the chains without. One
known difference is left out of the texts: the engine takes the text </s> for a control token even where a vocabulary
(Qwen's) has it as an ordinary one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf import TokenType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.support.checkpoints import TEXT
from tests.support.engine_vocabulary import EngineVocabulary
from tests.support.tiny_checkpoints.sentencepiece_vocabulary import SPACE, Spm, llama2_tokenizer, model_file, read_spm
from tests.support.tiny_checkpoints.vocabularies import read_bpe
from trit.base.errors import UserError
from trit.convert import pretokenizers
from trit.convert.spm import Pieces, from_model
from trit.convert.tokenizer import Vocabulary, _with_added, load_tokenizer
from trit.convert.vocabulary_check import check
from trit.gguf.types import GGUFWriter

# Scripts, combining marks, emoji with joiners and modifiers, long spaces, control characters, digits of many scripts,
# contractions in both cases, byte-order mark, private use, text that looks like special and byte tokens.
NASTY = [
    TEXT,
    "",
    " ",
    "   three   spaces   ",
    "\n\n\n\t\t \r\n \n x\r",
    "I'LL don'T WE'VE he's 'tis ''s",
    "1 12 123 1234 12345678901 1,234.56 3.14e-10 \u0661\u0662\u0663\u0664 \u00bd \u2167 \u4e09\u5341",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u6771\u4eac\u90fd\u3001\u4e2d\u6587\u5b57\u7b26 \ud55c\uad6d\uc5b4",
    "\u3072\u3089\u304c\u306a\u30ab\u30bf\u30ab\u30ca",
    "e\u0301a\u0308o\u0302 \u00e9 Z\u0351\u036b\u0343\u036a\u0302\u036bA\u0300\u0301L\u0302G\u0303O\u0304",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f44d\U0001f3fd\U0001f1eb\U0001f1f7 \u2764\ufe0f \u2122 \u00a35 \u20ac7 \u00a5",
    "\u00a0\u2003\u3000\u200b\ufeff\u2028\u2029\u0085x",
    "\x00\x01\x07\x1b[31m\x7f",
    "\U000f0000\ue000\U0010ffff \ufffd",
    "aaaaaaaaaaaaaaaa bbbbb ------------- ====== .......... ((((())))) {{{}}}",
    "def f(x):\n    return x**2  # comment\n\n\tif a<=b and c!=d: pass\n</div><br/>",
    "<s> <unk> <0x0A> \u2581 \u2581\u2581x <|endoftext|> [INST] <<SYS>>",
    "https://example.org/a?b=c&d=%20#e user@example.com C:\\dir\\file.txt",
    "CamelCaseString SCREAMING_SNAKE mixed123Numbers \u00c9cole \u00e9COLE \u0391\u0392\u0393\u03b1\u03b2\u03b3",
]
TEXTS = st.lists(
    st.sampled_from([*NASTY, " ", "  ", "\n", "'", "1", "a", "\u0301", "\u4e09"]) | st.text(max_size=12), max_size=6
).map("".join)

Edit = Callable[[dict[str, Any]], Any]
Loaded = Callable[[Tokenizer], tuple[EngineVocabulary, Vocabulary]]


@pytest.fixture
def load(engine_bin: Path, tmp_path: Path) -> Loaded:
    """Save a tokenizer as a folder, convert it to a GGUF file without weights, load that into the engine."""

    def convert_and_load(tokenizer: Tokenizer) -> tuple[EngineVocabulary, Vocabulary]:
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        return open_folder(engine_bin, tmp_path, tokenizer.get_vocab_size())

    return convert_and_load


def open_folder(engine_bin: Path, folder: Path, size: int) -> tuple[EngineVocabulary, Vocabulary]:
    config = {"bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = load_tokenizer(folder, config, size)
    writer = GGUFWriter(folder / "vocabulary.gguf", "llama")
    vocabulary.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return EngineVocabulary(engine_bin, folder / "vocabulary.gguf"), vocabulary


def compare(engine: EngineVocabulary, tokenizer: Tokenizer, texts: list[str] = NASTY) -> None:
    """Ids of every text, and of random mixtures of them, are the same in both."""
    for text in texts:
        assert engine.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids, repr(text)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def mixtures(text: str) -> None:
        assert engine.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids, repr(text)

    mixtures()


def isolated(regex: str) -> Any:
    return pre_tokenizers.Split(Regex(regex), "isolated")


def byte_level(use_regex: bool = False) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


CHAINS: dict[str, list[Any]] = {
    "gpt-2": [byte_level(True)],
    "llama-bpe": [isolated(pretokenizers.LLAMA_3), byte_level()],
    "dbrx": [isolated(pretokenizers.LLAMA_3), byte_level()],
    "qwen2": [isolated(pretokenizers.QWEN_2), byte_level()],
    "qwen35": [isolated(pretokenizers.QWEN_3_5), byte_level()],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), byte_level(True)],
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        byte_level(True),
        pre_tokenizers.Digits(individual_digits=False),
        isolated("[0-9][0-9][0-9]"),
    ],
}
# With the ends of lines as themselves, as its tokenizer.json has them.
LINE_ENDS = [regex.replace(r"\r", "\r").replace(r"\n", "\n") for regex in pretokenizers.HUNYUAN]
CHAINS["hunyuan-dense"] = [*map(isolated, LINE_ENDS), byte_level()]
# The vocabularies of the engine's source; for the others one is trained.
REAL = {"gpt-2": "gpt-2", "llama-bpe": "llama-bpe", "qwen2": "qwen2", "falcon": "falcon"}


def byte_level_tokenizer(name: str) -> Tokenizer:
    ignore_merges = name == "llama-bpe"
    if name in REAL:
        # The first tokens: whole vocabularies take 6 to 18 s each and gave the same result.
        bpe = read_bpe(REAL[name], 8000)
        tokenizer = Tokenizer(models.BPE(bpe.vocab, bpe.merges, ignore_merges=ignore_merges))
        tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in bpe.control])
    else:
        tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(CHAINS[name])
    tokenizer.decoder = decoders.ByteLevel()
    if name not in REAL:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
        # Without zero characters, which no file for the engine can hold.
        tokenizer.train_from_iterator([text.replace("\0", "") for text in NASTY] * 3, trainer)
    return tokenizer


@pytest.mark.parametrize("name", CHAINS)
def test_byte_level(name: str, load: Loaded) -> None:
    tokenizer = byte_level_tokenizer(name)
    engine, vocabulary = load(tokenizer)
    assert vocabulary.pre == name
    compare(engine, tokenizer)
    engine.close()


@pytest.fixture(scope="module")
def llama2() -> Spm:
    """LLaMA 2's characters and first 3000 longer tokens; the whole vocabulary gave no difference in 3000 texts."""
    return read_spm(3000)


def test_sentencepiece_style(llama2: Spm, load: Loaded) -> None:
    tokenizer = llama2_tokenizer(llama2, ["<pad>", "<tool>"])
    engine, vocabulary = load(tokenizer)
    assert vocabulary.pieces and vocabulary.pieces.space_prefix and not vocabulary.notes
    kinds = [vocabulary.types[tokenizer.token_to_id(text)] for text in ("<unk>", "<s>", "<0x0A>", "the", "<tool>")]
    wanted = gguf.TokenType
    assert kinds == [wanted.UNKNOWN, wanted.CONTROL, wanted.BYTE, wanted.NORMAL, wanted.USER_DEFINED]
    assert vocabulary.adds == {"bos": True, "eos": False}
    compare(engine, tokenizer)
    for text in ("</s>x</s> y", "a <tool>b", "<tool>"):
        assert engine.tokenize(text, True) == tokenizer.encode(text).ids, text
    engine.close()


def test_sentencepiece_model_file(llama2: Spm, engine_bin: Path, tmp_path: Path) -> None:
    """Where there is only tokenizer.model, with tokens added beside it."""
    (tmp_path / "tokenizer.model").write_bytes(model_file(llama2))
    size = len(llama2.tokens)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": size, "<tool>": size + 1}))
    decoder = {str(size): {"content": "<pad>", "special": True}, "1": {"content": "<s>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    engine, vocabulary = open_folder(engine_bin, tmp_path, size + 5)
    assert vocabulary.tokens[:size] == llama2.tokens and vocabulary.types[:size] == llama2.types
    wanted = gguf.TokenType
    assert vocabulary.types[size:] == [wanted.CONTROL, wanted.USER_DEFINED, *[wanted.UNUSED] * 3]
    compare(engine, llama2_tokenizer(llama2, ["<pad>", "<tool>"]))
    engine.close()
    # No reading of the trainer's is there to compare with.
    checked = check(tmp_path, vocabulary, "llama", vocabulary.write, tmp_path / "checked.gguf")
    assert checked.verified == "the engine loads the vocabulary" and checked.warnings == []


def test_gemma_style(llama2: Spm, load: Loaded) -> None:
    """No space in front; runs of newlines and of spaces that are tokens of their own, all with score 0."""
    runs = [SPACE * length for length in range(2, 12) if SPACE * length not in llama2.tokens]
    runs += ["\n" * length for length in range(2, 6)]
    kinds = [*llama2.types, *[int(gguf.TokenType.USER_DEFINED)] * len(runs)]
    gemma = Spm([*llama2.tokens, *runs], [*llama2.scores, *[0.0] * len(runs)], kinds)
    tokenizer = llama2_tokenizer(gemma, [run for run in runs if "\n" in run] + ["<start_of_image>"])
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    engine, vocabulary = load(tokenizer)
    assert vocabulary.pieces and not vocabulary.pieces.space_prefix
    compare(engine, tokenizer, [*NASTY, *(" " * length + "x" + "\n" * length for length in range(1, 40))])
    engine.close()


def test_metaspace(llama2: Spm, load: Loaded) -> None:
    """transformers' newer form of LLaMA 2's tokenizer: the same but after special tokens, which is told."""
    tokenizer = llama2_tokenizer(llama2)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    engine, vocabulary = load(tokenizer)
    (note,) = vocabulary.notes
    assert "after every special token" in note
    for text in NASTY:
        if text.startswith((" ", "<s>")):
            continue
        assert engine.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids, repr(text)
    engine.close()


def test_nfc_is_told(load: Loaded) -> None:
    tokenizer = byte_level_tokenizer("smollm")
    tokenizer.normalizer = normalizers.NFC()
    _, vocabulary = load(tokenizer)
    assert vocabulary.notes == [pretokenizers.NFC_NOTE]


def test_gpt_4o_is_another_function(load: Loaded) -> None:
    """Why the engine's "gpt-4o" is not in the table."""
    upper, lower = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
    gpt_4o = (
        rf"[^\r\n\p{{L}}\p{{N}}]?[{upper}]*[{lower}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        rf"[^\r\n\p{{L}}\p{{N}}]?[{upper}]+[{lower}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = byte_level_tokenizer("smollm")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([isolated(gpt_4o), byte_level()])
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("a\u00c9")] == ["a", "\u00c3\u012b"]
    with pytest.raises(UserError, match="its pre_tokenizer is none that is known here"):
        load(tokenizer)


def trained_over_characters() -> Tokenizer:
    """BPE over characters that was trained, not made from SentencePiece: one merge for each token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=specials, show_progress=False)
    # Without zero characters, which no file for the engine can hold.
    tokenizer.train_from_iterator([text.replace("\0", "") for text in NASTY] * 3, trainer)
    return tokenizer


def change(tokenizer: Tokenizer, path: Path, edit: Edit) -> None:
    description = json.loads(tokenizer.to_str())
    edit(description)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["model"].update(ignore_merges=True), "ignores merges"),
        (lambda d: d["model"]["merges"].append(d["model"]["merges"][0]), "are apart"),
        (lambda d: d["model"]["merges"].pop(100), "no merge makes"),
        (lambda d: d["model"]["vocab"].update({"<0x0a>": d["model"]["vocab"].pop("<0x0A>")}), "no token <0x0A>"),
        (lambda d: d.update(normalizer={"type": "NFKC"}), "prepares text in a way that the engine does not"),
        (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "prepares text in a way that the engine does not"),
    ],
)
def test_sentencepiece_refusals(edit: Edit, message: str, llama2: Spm, tmp_path: Path) -> None:
    change(llama2_tokenizer(llama2), tmp_path / "tokenizer.json", edit)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path, {"eos_token_id": 2}, 40_000)


def test_trained_merges_are_refused(load: Loaded) -> None:
    with pytest.raises(UserError, match="only merges made from a SentencePiece vocabulary are supported"):
        load(trained_over_characters())


@pytest.mark.parametrize("keep", [1, 20, 5000, -3])
def test_broken_model_file(keep: int, llama2: Spm, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file(llama2)[:keep])
    with pytest.raises(UserError, match=r"tokenizer\.model: "):
        load_tokenizer(tmp_path, {"eos_token_id": 2}, 40_000)


def test_a_model_file_leaves_out_what_is_the_default(llama2: Spm, tmp_path: Path) -> None:
    """SentencePiece puts a space in front unless its file says otherwise."""
    path = tmp_path / "tokenizer.model"
    whole = model_file(llama2)
    keeps_spaces, says_yes, says_no = (b"\x1a" + bytes([len(rest)]) + rest for rest in (
        b"\x20\x00", b"\x18\x01\x20\x00", b"\x18\x00\x20\x00",
    ))  # fmt: skip
    for last, prefix in ((keeps_spaces, True), (says_yes, True), (says_no, False)):
        path.write_bytes(whole + last)
        assert from_model(path).space_prefix is prefix


def test_punctuation_one_by_one_is_another_split() -> None:
    """Falcon's runs of punctuation are one step; the engine has no name for single ones."""
    assert pretokenizers._step({"type": "Punctuation", "behavior": "Contiguous"}) == pretokenizers.PUNCTUATION_RUNS
    steps = [
        {"type": "Punctuation", "behavior": "Isolated"},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False},
    ]
    description = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "model": {}}
    with pytest.raises(UserError, match="its pre_tokenizer is none that is known here"):
        pretokenizers.pre_tokenizer(Path("tokenizer.json"), description)
    steps[0]["behavior"] = "Contiguous"
    assert pretokenizers.pre_tokenizer(Path("tokenizer.json"), description) == ("falcon", [])


def test_model_file_of_another_kind(llama2: Spm, tmp_path: Path) -> None:
    path, whole = tmp_path / "tokenizer.model", model_file(llama2)
    # The last message of a kind holds: a trainer of type unigram, a normalizer with a table, one that removes spaces.
    for spoil, message in (
        (b"\x12\x02\x18\x01", "is no BPE model"),
        (b"\x1a\x05\x12\x01x\x20\x00", "normalises text"),
        (b"\x1a\x02\x18\x01", "removes repeated spaces"),
    ):
        path.write_bytes(whole + spoil)
        with pytest.raises(UserError, match=message):
            load_tokenizer(tmp_path, {"eos_token_id": 2}, 40_000)


@pytest.mark.parametrize(("where", "expected"), [(1, "has id 1, expected 3"), (4, "has id 4, expected 3")])
def test_added_tokens_follow_those_of_the_model_file(where: int, expected: str, tmp_path: Path) -> None:
    """One that takes the id of another token, or leaves a gap, would move all that follow."""

    def pieces() -> Pieces:
        return Pieces(["a", "b", "c"], [0.0, -1.0, -2.0], [TokenType.NORMAL] * 3, True, [])

    (tmp_path / "added_tokens.json").write_text(json.dumps({"b": 1, "<x>": 3}))
    found = _with_added(tmp_path, pieces())
    assert found.tokens == ["a", "b", "c", "<x>"] and found.types[3] == TokenType.USER_DEFINED
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": where}))
    with pytest.raises(UserError, match=f"added token '<x>' {expected}"):
        _with_added(tmp_path, pieces())
