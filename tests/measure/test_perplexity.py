# SPDX-License-Identifier: MIT
"""What ``utils/test_perplexity.py`` is made of: llama-perplexity's words and files, marks, the shipped text."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.perplexity_outputs import DIVERGENCE, PLAIN, TOO_SHORT
from trit.base.errors import EXIT_OK, EXIT_USAGE, TritError, UserError, run_main
from trit.base.places import ROOT
from trit.engine import perplexity_output
from trit.engine.llama_perplexity import TooShort
from trit.engine.logprobs import LogprobsFile, counted_positions, read_logprobs, row_bytes
from trit.engine.perplexity_output import Measured
from trit.gguf.types import GgufHeader
from trit.measure import report
from trit.measure.perplexity import held_out, passages, tables
from trit.measure.perplexity.measure import Row, logprobs_name
from trit.measure.perplexity.passages import token_bytes
from trit.measure.perplexity.texts import Text, find_texts
from trit.train.story import MAX_SENTENCES, held_out_questions, is_held_out

BUNDLED = GgufHeader({"general.name": "Trit Story 3m"}, {}, {})
OTHER = GgufHeader({"general.name": "Another"}, {}, {})


def without(lines: list[str], words: str) -> list[str]:
    return [line for line in lines if words not in line]


def save(path: Path, tokens: npt.NDArray[np.int32], codes: npt.NDArray[np.uint16], scale: float) -> None:
    """Write what --save-all-logits writes; codes [chunks, positions, vocabulary], 65535 stands for log 1."""
    chunks, context = tokens.shape
    data = b"_logits_" + np.array([context, codes.shape[-1], chunks], "<i4").tobytes() + tokens.astype("<i4").tobytes()
    for row in codes.reshape(-1, codes.shape[-1]):
        words = np.concatenate([row, np.zeros(row.size % 2, "<u2")]).astype("<u2")
        data += np.array([scale, -65535 * scale], "<f4").tobytes() + words.tobytes()
    path.write_bytes(data)


def test_perplexity_is_read() -> None:
    assert perplexity_output.estimate(PLAIN) == Measured(486597.0785, 118595.71278)
    assert perplexity_output.pieces(PLAIN) == perplexity_output.pieces(DIVERGENCE) == (8, 256)
    assert perplexity_output.too_short(TOO_SHORT) == 137 and perplexity_output.too_short(PLAIN) is None


def test_divergence_is_read() -> None:
    found = perplexity_output.divergence(DIVERGENCE)
    assert found.perplexity == Measured(486597.078503, 118595.713081)
    assert found.reference_perplexity == Measured(78138.580028, 14457.378511)
    assert found.log_ratio == Measured(1.828953, 0.089829)
    assert (found.kl, found.kl_median) == (Measured(0.001271, 0.00018), 0.000004)
    assert (found.kl_99, found.kl_max) == (0.021984, 0.105875)
    assert found.same_top.value == pytest.approx(0.99311) and found.same_top.error == pytest.approx(0.0026)


@pytest.mark.parametrize(
    "words",
    [
        "Mean PPL(Q)  ",
        "Mean PPL(base)  ",
        "Mean ln(",
        "Mean    KLD",
        "Median  KLD",
        "99.0%   KLD",
        "Maximum KLD",
        "Same top p:",
    ],
)
def test_no_number_may_be_missing_or_there_twice(words: str) -> None:
    assert len(DIVERGENCE) - len(without(DIVERGENCE, words)) == 1
    with pytest.raises(TritError, match="0 times instead of once"):
        perplexity_output.divergence(without(DIVERGENCE, words))
    twice = [copy for line in DIVERGENCE for copy in ([line, line] if words in line else [line])]
    with pytest.raises(TritError, match="2 times instead of once"):
        perplexity_output.divergence(twice)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TritError, match="the perplexity 0 times"):
        perplexity_output.estimate(without(PLAIN, "Final"))
    with pytest.raises(TritError, match="the perplexity 0 times"):
        perplexity_output.estimate([line.replace("486597.0785 +/-", "486597.07x5 +/-") for line in PLAIN])
    with pytest.raises(TritError, match="says nan for the perplexity"):
        perplexity_output.estimate([line.replace("486597.0785 +/-", "nan +/-") for line in PLAIN])
    with pytest.raises(TritError, match="says inf for Mean KLD"):
        perplexity_output.divergence([line.replace("0.001271 ±", "inf ±") for line in DIVERGENCE])
    with pytest.raises(TritError, match="no spread"):
        perplexity_output.estimate([*without(PLAIN, "Final"), "E Unexpected negative standard deviation of log(prob)"])


def test_equal_models_have_a_ratio_without_an_error() -> None:
    """The engine takes the root of a variance that rounding may have made negative."""
    found = perplexity_output.divergence(
        [line.replace("1.828953 ±   0.089829", "0.000000 ±       -nan") for line in DIVERGENCE]
    )
    assert found.log_ratio == Measured(0, 0)


@pytest.mark.parametrize("vocabulary", [4, 5])
def test_saved_file_is_read_piece_by_piece(tmp_path: Path, vocabulary: int) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, (3, 8)).astype(np.int32)
    codes = rng.integers(1, 65536, (3, 3, vocabulary)).astype(np.uint16)
    path = tmp_path / "a.logits"
    save(path, tokens, codes, 2e-4)
    file = LogprobsFile.open(path)
    assert (file.chunks, file.context, file.counted, file.vocabulary) == (3, 8, 9, vocabulary)
    assert np.array_equal(file.tokens, tokens)
    for number in range(3):
        assert np.allclose(file.chunk(number), (codes[number] - 65535.0) * 2e-4, atol=1e-5)
    assert np.array_equal(read_logprobs(path).logprobs[1], file.chunk(1))
    assert file.clipped() == 0
    codes[2, 1, tokens[2, 6]] = 0  # position 1 of a piece predicts its token 8 / 2 + 1 + 1
    save(path, tokens, codes, 2e-4)
    assert LogprobsFile.open(path).clipped() == pytest.approx(1 / 9)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"has {path.stat().st_size} bytes, its header asks for"):
        LogprobsFile.open(path)
    path.write_bytes(b"_logits_" + bytes(4))
    with pytest.raises(UserError, match="--save-logits"):
        LogprobsFile.open(path)


def test_positions_are_those_that_llama_perplexity_counts() -> None:
    assert [counted_positions(context) for context in (16, 256, 512)] == [7, 127, 255]
    assert row_bytes(2013) == 2 * (2014 + 4)


def test_tokens_of_both_kinds_of_vocabulary_are_spelled_out(tmp_path: Path) -> None:
    tokens = ["<s>", "\u0120Mary", "\u010a", "\u00c3\u00a9", "<mine>"]
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens}
    header = GgufHeader({**metadata, "tokenizer.ggml.token_type": [3, 1, 1, 1, 4]}, {}, {})
    assert token_bytes(header, tmp_path) == [b"", b" Mary", b"\n", "\u00e9".encode(), b"<mine>"]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<s>", "\u2581Mary", "<0x0A>", "\u00e9"]}
    header = GgufHeader({**metadata, "tokenizer.ggml.token_type": [3, 1, 6, 1]}, {}, {})
    assert token_bytes(header, tmp_path) == [b"", b" Mary", b"\n", "\u00e9".encode()]
    with pytest.raises(UserError, match="kind bert"):
        token_bytes(GgufHeader({**metadata, "tokenizer.ggml.model": "bert"}, {}, {}), tmp_path)


PIECES = [b"", b"Who?", b" A", b":", b" Mary", b".", b"\n", b"A: John."]


def test_marks_are_found_across_tokens() -> None:
    text = [0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 0, 4]
    assert passages.behind_mark(text, PIECES, b"A:").nonzero()[0].tolist() == [4, 5, 11]
    # The mark is only a part of the token: what follows it there is no whole token.
    assert not passages.behind_mark([1, 7, 6, 4], PIECES, b"A:").any()
    assert passages.behind_mark([3, 5, 3, 5], PIECES, b":").tolist() == [False, True, True, True]


def test_statistics_behind_marks(tmp_path: Path) -> None:
    """Two pieces of 8 tokens; counted are tokens 5 to 7 of each, behind the mark three of them."""
    tokens = np.array([[0, 1, 2, 3, 4, 5, 6, 1], [0, 1, 1, 2, 3, 4, 5, 6]], np.int32)
    scale = 16 / 65535
    codes = np.full((2, 3, len(PIECES)), 20000, np.uint16)
    for (chunk, position, token), code in {
        (0, 0, 5): 65535,
        (1, 0, 4): 60000,
        (1, 1, 5): 50000,
        (1, 1, 1): 55000,
    }.items():
        codes[chunk, position, token] = code
    save(tmp_path / "a.logits", tokens, codes, scale)
    other = codes.copy()
    other[1, 1, 5] = 60000
    save(tmp_path / "b.logits", tokens, other, scale)
    ours, theirs = LogprobsFile.open(tmp_path / "a.logits"), LogprobsFile.open(tmp_path / "b.logits")
    found = passages.measure(ours, theirs, PIECES, "A:")
    losses = np.array([0, 5535, 15535]) * scale
    assert found.counted == 3
    assert found.perplexity.value == pytest.approx(np.exp(losses.mean()), rel=1e-4)
    assert found.perplexity.error == pytest.approx(np.exp(losses.mean()) * losses.std(ddof=1) / np.sqrt(3), rel=1e-4)
    assert found.right.value == pytest.approx(2 / 3) and found.same_top and found.same_top.value == pytest.approx(2 / 3)
    assert found.log_ratio and found.log_ratio.value == pytest.approx(10000 * scale / 3, rel=1e-4)
    # The two differ in one entry of one position: p (log p - log q) there, 0 elsewhere.
    assert found.kl and found.kl.value == pytest.approx(np.exp(-5535 * scale) * 10000 * scale / 3, rel=1e-3)
    alone = passages.measure(ours, None, PIECES, "A:")
    assert alone.perplexity == found.perplexity and alone.kl is None and alone.log_ratio is None
    with pytest.raises(UserError, match="--after 'Where': 0 of"):
        passages.measure(ours, None, PIECES, "Where")
    save(tmp_path / "b.logits", tokens[::-1], other, scale)
    with pytest.raises(TritError, match="different tokens"):
        passages.measure(ours, LogprobsFile.open(tmp_path / "b.logits"), PIECES, "A:")


def test_short_text_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert "has 137 tokens, and a context of 256 needs 512; take -c 68 or less" in str(TooShort(tmp_path, 137, 256))
    assert "take a longer text" in str(TooShort(tmp_path, 20, 256))


def test_shipped_text_is_what_its_command_writes(tmp_path: Path) -> None:
    shipped = held_out.HELD_OUT.read_bytes()
    assert run_main(held_out.main, ["--out", str(tmp_path / "again.txt")]) == EXIT_OK
    assert (tmp_path / "again.txt").read_bytes() == shipped
    assert len(shipped) < 150_000 and shipped.decode("ascii").count(held_out.MARK) > 150
    asked = held_out_questions(Random(held_out.SEED), held_out.STORIES, range(1, MAX_SENTENCES + 1))
    assert all(is_held_out(story.text) and story.text in shipped.decode() for story, _ in asked)
    assert held_out.make_text(1, 5) not in shipped.decode()
    assert run_main(held_out.main, ["--stories", "0"]) == EXIT_USAGE


def test_shipped_text_is_made_without_a_package() -> None:
    """-I -S: no packages at all."""
    code = "from trit.measure.perplexity.held_out import make_text; make_text(1, 5)"
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; {code}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_texts_are_found(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/a.txt", "wiki.raw", "c.md", "model.bin"):
        (tmp_path / name).write_text("A text.\n")
    models = [(tmp_path / "x.gguf", OTHER)]
    assert [text.name for text in find_texts([tmp_path], models)] == ["b/a.txt", "c.md", "wiki.raw"]
    assert [text.name for text in find_texts([tmp_path / "model.bin"], models)] == ["model.bin"]
    assert [text.path for text in find_texts([], [(tmp_path, BUNDLED)])] == [held_out.HELD_OUT]


def test_texts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "zeros.txt").write_bytes(b"\0" * 9)
    (tmp_path / "folder").mkdir()
    for name, words in {
        "none.txt": "is not there",
        "empty.txt": "is empty",
        "zeros.txt": "is no text",
        "folder": "holds no file that ends in",
    }.items():
        with pytest.raises(UserError, match=words):
            find_texts([tmp_path / name], [(tmp_path, BUNDLED)])
    (tmp_path / "folder" / "a.txt").write_text("A text.\n")
    with pytest.raises(UserError, match=r"another text is called a\.txt"):
        find_texts([tmp_path / "folder", tmp_path / "folder" / "a.txt"], [(tmp_path, BUNDLED)])
    with pytest.raises(UserError, match="name a text file with -d"):
        find_texts([], [(tmp_path, BUNDLED), (tmp_path, OTHER)])


ROW = Row("m/a.gguf", "i2_s", "q6_k", 1_400_000, 2013, "a.txt", 256, "", 7620, Measured(12.5, 0.25))


def test_reports(tmp_path: Path) -> None:
    divergence = perplexity_output.divergence(DIVERGENCE)
    compared = replace(ROW, model="m/b.gguf", kl=divergence.kl, same_top=divergence.same_top, divergence=divergence)
    rows = [replace(ROW, is_reference=True), compared]
    lines = tables.table(rows).splitlines()
    assert len(lines) == 4 and len(set(map(len, lines))) == 1 and set(lines[1]) == set("|- ")
    assert "12.5000 +/- 0.2500" in lines[2] and "| reference " in lines[2]
    assert "0.001271 +/- 0.000180" in lines[3] and "99.31 +/- 0.26" in lines[3] and "right" not in lines[0]
    report.write(tmp_path / "a.csv", report.as_csv([tables.flat(row) for row in rows]))
    head, first, second = (line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines())
    assert dict(zip(head, first, strict=True))["kl"] == ""
    values = dict(zip(head, second, strict=True))
    assert (values["perplexity"], values["perplexity_error"], values["kl_99"]) == ("12.5", "0.25", "0.021984")
    assert not tables.notes(rows)
    assert "a.txt" in tables.notes([replace(ROW, perplexity=Measured(2014, 1))])[0]
    tables.draw(tmp_path / "a.png", rows)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flag", ["-o", "--csv-output", "--json", "--plot", "--save-logits"])
def test_a_place_that_cannot_be_written_is_said_first(
    story_gguf: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from trit.base.errors import run_main
    from trit.measure.perplexity.command import main

    (tmp_path / "file").touch()
    places = {"-o": tmp_path / "results", flag: tmp_path / "file" / "x"}
    words = [str(word) for item in places.items() for word in item]
    assert run_main(main, ["-m", str(story_gguf), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {flag} ") and "cannot be written" in error and error.count("\n") == 1


def test_every_text_has_log_probabilities_of_its_own() -> None:
    names = ["a/b.txt", "a_b.txt", "a%2Fb.txt", "a b.txt"]
    files = [logprobs_name(Text(name, Path(name))) for name in names]
    assert len(set(files)) == len(names) and not any("/" in name for name in files)
    assert logprobs_name(Text("held-out.txt", Path("held-out.txt"))) == "held-out.txt.logits"
