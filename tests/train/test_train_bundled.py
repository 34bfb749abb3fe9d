# SPDX-License-Identifier: MIT
"""The checkpoint in models/: an ordinary folder, small enough, and it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, BitNetForCausalLM

from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT
from trit.train.checkpoint import load_checkpoint
from trit.train.model import Decoder
from trit.train.story import held_out_questions
from trit.train.tokenizer import EOS, train_tokenizer

LIMIT_BYTES = 12_000_000
DEMO_PROMPTS = [DEMO_PROMPT, DEMO_PROMPT.replace("\\n", "\n"), DEMO_PROMPT.replace("\\n", " ")]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More threads wait for each other on a busy machine, and so small a model gains little from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundled() -> tuple[Decoder, Tokenizer]:
    return load_checkpoint(BUNDLED_MODEL)


def answers(bundled: tuple[Decoder, Tokenizer], prompts: list[str], max_new: int = 12) -> list[str]:
    model, tokenizer = bundled
    ids = [tokenizer.encode(prompt).ids for prompt in prompts]
    return [tokenizer.decode(tokens) for tokens in model.generate(ids, tokenizer.token_to_id(EOS), max_new)]


def test_folder_is_whole_and_small() -> None:
    files = [path for path in BUNDLED_MODEL.iterdir() if path.suffix != ".gguf"]
    assert {path.name for path in files} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "held-out.txt",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES


def test_vocabulary_is_the_one_that_the_script_makes(bundled: tuple[Decoder, Tokenizer]) -> None:
    assert json.loads(bundled[1].to_str()) == json.loads(train_tokenizer().to_str())


def test_linear_weights_are_ternary() -> None:
    with safe_open(BUNDLED_MODEL / "model.safetensors", "pt") as file:
        linear = [name for name in file.keys() if name.endswith("proj.weight")]  # noqa: SIM118 (not a dict)
        for name in linear:
            values = file.get_tensor(name).unique().tolist()
            assert len(values) == 3 and values[0] == -values[2] and values[1] == 0, name
    config = json.loads((BUNDLED_MODEL / "config.json").read_text())
    assert len(linear) == 7 * config["num_hidden_layers"]


def test_demo_prompt(bundled: tuple[Decoder, Tokenizer]) -> None:
    assert answers(bundled, DEMO_PROMPTS, max_new=6) == [" Mary is in the garden."] * 3
    # With room for more the model ends by itself.
    assert answers(bundled, DEMO_PROMPTS) == [" Mary is in the garden."] * 3


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Sandra is in the library. Where is Sandra?\nAnswer:", " Sandra is in the library."),
        (
            "Bill ran to the park. Fred ran to the park. Bill ran back to the school. Where is Fred?\nAnswer:",
            " Fred is in the park.",
        ),
        (
            "Julie hurried to the cinema.\nJeff walked to the attic.\nJulie returned to the attic.\nWhere is Julie?",
            " Julie is in the attic.",
        ),
        (
            "Emma drove to the train station. Noah went to the living room. Where is Emma? Answer:",
            " Emma is in the train station.",
        ),
        ("mary went to the kitchen. john went to the garden. where is mary?\nanswer:", " mary is in the kitchen."),
    ],
)
def test_written_by_hand(bundled: tuple[Decoder, Tokenizer], prompt: str, answer: str) -> None:
    assert answers(bundled, [prompt]) == [answer]


@pytest.mark.parametrize("seed", [11, 12])
def test_fresh_stories(bundled: tuple[Decoder, Tokenizer], seed: int) -> None:
    asked = held_out_questions(Random(seed), 42, range(1, 15))
    found = answers(bundled, [story.text + question.prompt for story, question in asked])
    # About 1 in 140 is wrong, all of them long stories (see the card); the engine is scored in test_train_script.py.
    right = sum(answer == question.answer for answer, (_, question) in zip(found, asked, strict=True))
    assert right >= 40


def test_transformers_answers_without_our_code() -> None:
    """Plain transformers does not round the activations; the answer is the same."""
    model = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    assert type(model) is BitNetForCausalLM
    for prompt in DEMO_PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**ids)[0, ids["input_ids"].shape[1] :]
        assert tokenizer.decode(output, skip_special_tokens=True) == " Mary is in the garden."
        assert output[-1] == model.generation_config.eos_token_id


def test_card_names_the_command_of_its_score() -> None:
    card = Path(BUNDLED_MODEL / "README.md").read_text(encoding="utf-8")
    scores = re.findall(r"([\d.]+) % of (\d+) held-out stories answered exactly", card)
    assert scores and all(float(score) >= 99 and int(count) >= 1000 for score, count in scores)
    assert "trit score" in card and "trit train" in card
