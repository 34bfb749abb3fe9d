# SPDX-License-Identifier: MIT
"""Score a story model: the share of held-out stories whose question it answers exactly, greedily, to the end of text.

Examples:
    trit score                          # the bundled checkpoint, in torch
    trit score --engine llama           # its i2_s file, through the compiled engine
    trit score --model models/my-story-model --stories 2000 --seed 7
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from random import Random

import torch

from trit.base import by_name
from trit.base.errors import EXIT_OK, UserError
from trit.base.flags import SEEDS, THREADS, ArgumentParser, a_path, whole
from trit.base.host import physical_cores
from trit.base.places import BUNDLED_MODEL
from trit.engine.server import Server
from trit.gguf.made import default_model
from trit.train.checkpoint import MAX_ANSWER_TOKENS, load_checkpoint
from trit.train.story import MAX_SENTENCES, Question, Story, held_out_questions
from trit.train.tokenizer import EOS, special_id

Answerer = Callable[[Sequence[str]], Iterator[str]]
_TORCH_BATCH = 50


def torch_answers(directory: Path, threads: int) -> Answerer:
    """Answers of a checkpoint folder, computed by ``trit.train.model`` in float32 with int8 activations."""
    torch.set_num_threads(threads)
    model, tokenizer = load_checkpoint(directory)
    eos = special_id(tokenizer, EOS)

    def answer(prompts: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(prompts), _TORCH_BATCH):
            ids = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts[start : start + _TORCH_BATCH]))]
            yield from (tokenizer.decode(tokens) for tokens in model.generate(ids, eos, MAX_ANSWER_TOKENS))

    return answer


def report(asked: Sequence[tuple[Story, Question]], answers: Sequence[str], show: int) -> float:
    """Print the score by length and by form of the prompt, and some wrong answers; return the score in percent."""
    right = [answer == question.answer for (_, question), answer in zip(asked, answers, strict=True)]
    for title, keys in (
        ("sentences", [len(story.sentences) for story, _ in asked]),
        ("form", [question.style for _, question in asked]),
    ):
        total, good = Counter(keys), Counter(key for key, ok in zip(keys, right, strict=True) if ok)
        print(f"{title}: " + ", ".join(f"{key} {good[key]}/{total[key]}" for key in total))
    wrong = [(story.text + question.prompt, answer) for (story, question), answer in zip(asked, answers, strict=True)]
    for prompt, answer in [pair for pair, ok in zip(wrong, right, strict=True) if not ok][:show]:
        print(f"wrong: {prompt!r} -> {answer!r}")
    return 100 * sum(right) / len(right)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = ArgumentParser(
        prog="trit score",
        description=(__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=a_path, default=BUNDLED_MODEL, help="checkpoint folder, GGUF file, or a name")
    parser.add_argument("--engine", choices=("torch", "llama"), default="torch", help="what computes the answers")
    parser.add_argument("--stories", type=whole(1), default=1000, help="how many held-out stories")
    parser.add_argument(
        "--longest", type=whole(1, 1000), default=MAX_SENTENCES, help="sentences in the longest stories"
    )
    parser.add_argument("--seed", type=SEEDS, default=1, help="seed of the stories")
    parser.add_argument("--threads", type=THREADS, default=physical_cores(), help="threads to compute with")
    parser.add_argument("--show", type=whole(0), default=3, help="how many wrong answers to print")
    parser.add_argument("--json", action="store_true", help="print one JSON object; the tables go to standard error")
    arguments = parser.parse_args(argv)
    if arguments.engine == "torch":
        arguments.model = by_name.checkpoint(arguments.model)
    elif (named := by_name.named_file(arguments.model)).is_dir():
        arguments.model = default_model(named)
    else:
        arguments.model = named
    if arguments.engine == "torch" and not arguments.model.is_dir():
        raise UserError(f"--model {arguments.model}: is no checkpoint folder (a GGUF file needs --engine llama)")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Score one model."""
    arguments = parse_arguments(argv)
    lengths = range(1, arguments.longest + 1)
    asked = held_out_questions(Random(arguments.seed), arguments.stories, lengths)
    prompts = [story.text + question.prompt for story, question in asked]
    if arguments.engine == "torch":
        answers = list(torch_answers(arguments.model, arguments.threads)(prompts))
    else:
        with Server(arguments.model, arguments.threads) as server:
            answers = server.complete(prompts, MAX_ANSWER_TOKENS)
    with redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        score = report(asked, answers, arguments.show)
    if arguments.json:
        facts = {"engine": arguments.engine, "model": str(arguments.model), "seed": arguments.seed}
        print(json.dumps({"percent": score, "stories": len(asked), "longest": arguments.longest, **facts}))
        return EXIT_OK
    print(
        f"{score:.1f} % of {len(asked)} held-out stories answered exactly "
        f"({arguments.engine}, {arguments.model.name}, seed {arguments.seed}, 1 to {arguments.longest} sentences)"
    )
    return EXIT_OK
