# SPDX-License-Identifier: MIT
"""Train the bundled story model, or one like it, from nothing.

Example:
    trit train --out models/my-story-model --minutes 8 --threads 2 --seed 0

What makes so small a model learn so fast is written in docs/story-model.md. Nothing appears under ``--out`` before the
training is complete; Ctrl-C ends it without a trace.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.fx.experimental import _config as fx_config
from torch.nn import functional

from trit.base.errors import EXIT_OK, UserError
from trit.base.flags import SEEDS, THREADS, ArgumentParser, a_path, real, whole
from trit.train.batches import IGNORED, Batch, BatchMaker
from trit.train.checkpoint import load_checkpoint, save_checkpoint
from trit.train.model import Decoder, DecoderConfig
from trit.train.story import MAX_SENTENCES
from trit.train.tokenizer import train_tokenizer

_LEARNING_RATE = 1e-3
_WARM_UP_STEPS = 50
_DECAY_FROM = 0.6
_LAST_RATE = 0.02
_DESTINATION_WEIGHT = 0.5
# Answers have about eight tokens, so eight times the share of wrong tokens is about the share of wrong answers.
_TOKENS_PER_ANSWER = 8
_COMPETENT = 0.1
_SINGLE_SENTENCE = 0.03


@dataclass(frozen=True)
class Plan:
    """When training ends: after some minutes or, reproducibly, after some steps."""

    minutes: float
    steps: int | None
    seconds_at_start: float

    def progress(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        if self.steps is not None:
            return step / self.steps
        return (time.monotonic() - self.seconds_at_start) / (60 * self.minutes)


@dataclass
class State:
    """What the progress line says."""

    step: int = 0
    loss: float = math.nan
    wrong: float = 1.0
    longest: int = 2
    tokens: int = 0


def losses(model: Decoder, batch: Batch, maker: BatchMaker) -> tuple[Tensor, Tensor]:
    """Training loss and the share of wrong tokens among the answers' (both float []).

    The loss is the cross-entropy of the answers' tokens plus two helpers that exist in training only: the stream after
    block 0 must tell whom the sentence is about, at every token, and after block 1, at each full stop, where they are.
    """
    states = model.hidden_states(batch.ids)
    asked = batch.answers != IGNORED
    logits = model.head(states[-1][asked])
    labels = batch.answers[asked]
    loss = functional.cross_entropy(logits, labels)
    embedding = model.embed_tokens.weight
    for state, wanted, ids, weight in (
        (states[0], batch.subjects, maker.name_ids, 1.0),
        (states[1], batch.destinations, maker.place_ids, _DESTINATION_WEIGHT),
    ):
        known = wanted != IGNORED
        normed = functional.rms_norm(state[known], (state.shape[-1],))
        loss = loss + weight * functional.cross_entropy(normed @ embedding[ids].t(), wanted[known])
    return loss, (logits.detach().argmax(-1) != labels).float().mean()


def make_optimizer(model: Decoder) -> torch.optim.Optimizer:
    """AdamW; only the linear layers decay."""
    linear = [p for name, p in model.named_parameters() if name.endswith("proj.weight")]
    other = [p for name, p in model.named_parameters() if not name.endswith("proj.weight")]
    groups = [{"params": linear, "weight_decay": 0.05}, {"params": other, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=_LEARNING_RATE, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up, constant until 60 % of the training, then linear down to 2 %."""
    decay = 1 - (1 - _LAST_RATE) * max(0.0, min(1.0, (progress - _DECAY_FROM) / (1 - _DECAY_FROM)))
    return _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP_STEPS) * decay


def train(model: Decoder, maker: BatchMaker, plan: Plan, rng: Random, device: str) -> Iterator[State]:
    """Train in place and yield the state after every step.

    Curriculum by competence: stories have 1 to ``longest`` sentences, and ``longest`` grows by one whenever fewer than
    about a tenth of the answers about the longest ones are wrong.

    Args:
        model: In training mode, on ``device``.
        maker: Source of batches.
        plan: When to end.
        rng: Source of the stories' lengths.
        device: Where the model is.
    """
    optimizer = make_optimizer(model)
    state = State()
    maker.name_ids, maker.place_ids = maker.name_ids.to(device), maker.place_ids.to(device)
    while (progress := plan.progress(state.step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.step, progress)
        sentences = 1 if rng.random() < _SINGLE_SENTENCE else rng.randint(2, state.longest)
        batch = maker.make(sentences)
        batch = Batch(*(tensor.to(device) for tensor in vars(batch).values()))
        loss, wrong = losses(model, batch, maker)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state.step += 1
        state.loss = loss.item()
        state.tokens += batch.ids.numel()
        if sentences >= state.longest - 1:
            state.wrong = 0.9 * state.wrong + 0.1 * min(1.0, _TOKENS_PER_ANSWER * wrong.item())
        if state.wrong < _COMPETENT and state.longest < MAX_SENTENCES:
            # The next length has to show its own competence.
            state.longest, state.wrong = state.longest + 1, 2 * _COMPETENT
        yield state


def faster_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it faster than float32, by trying both."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 768, dtype=dtype)
        torch.mm(a, b)
        start = time.perf_counter()
        for _ in range(5):
            torch.mm(a, b)
        seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=lambda dtype: seconds[dtype])


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = ArgumentParser(
        prog="trit train",
        description=(__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=a_path, required=True, help="checkpoint folder to make; must not exist")
    parser.add_argument("--minutes", type=real(0, 100_000, above=True), default=8.0, help="training time")
    parser.add_argument("--steps", type=whole(1), help="train this many steps instead, whatever time they take")
    parser.add_argument("--threads", type=THREADS, default=2, help="threads of torch")
    parser.add_argument("--seed", type=SEEDS, default=0, help="seed of the stories and of the start weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of matrix products")
    parser.add_argument(
        "--batch", type=whole(1, 1 << 16), default=64, help="documents per step for stories of middling length"
    )
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler; faster)")
    parser.add_argument("--init", type=a_path, help="start from this checkpoint folder instead of random weights")
    parser.add_argument("--master-weights", action="store_true", help="write master weights, not the ternary values")
    arguments = parser.parse_args(argv)
    if arguments.out.exists():
        raise UserError(f"--out {arguments.out}: is already there; name a new folder")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this torch finds no CUDA device; use --device cpu")
    return arguments


def report(state: State, plan: Plan, last: bool) -> None:
    """One line, overwritten on a terminal and repeated now and then elsewhere."""
    seconds = time.monotonic() - plan.seconds_at_start
    line = (
        f"{plan.progress(state.step):4.0%}  step {state.step}  loss {state.loss:.3f}  sentences <= {state.longest}  "
        f"wrong {state.wrong:.3f}  "
        f"{state.tokens / seconds / 1000:.1f}k tokens/s  {seconds:.0f} s"
    )
    if sys.stderr.isatty():
        print(f"\r{line:<110}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last or state.step % 100 == 0:
        print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write the checkpoint."""
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    # Denormal numbers, which the softmax of long stories is full of, are many times slower.
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    rng = Random(arguments.seed)
    if arguments.init:
        model, tokenizer = load_checkpoint(arguments.init)
    else:
        tokenizer = train_tokenizer()
        model = Decoder(DecoderConfig(vocab_size=tokenizer.get_vocab_size()))
        model.init_weights()
    dtype = faster_dtype() if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model.to(arguments.device).train().matmul_dtype = dtype
    if arguments.compile:
        # Batch and length are two unknowns even where they happen to be equal: otherwise blocks compile again
        # and again.
        fx_config.use_duck_shape = False
        for block in model.layers:
            block.compile(dynamic=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, products in {str(dtype).removeprefix('torch.')}", file=sys.stderr)
    plan = Plan(arguments.minutes, arguments.steps, time.monotonic())
    state = State()
    for state in train(model, BatchMaker(tokenizer, rng, arguments.batch), plan, rng, arguments.device):
        report(state, plan, last=False)
    report(state, plan, last=True)
    save_checkpoint(model.cpu(), tokenizer, arguments.out, master=arguments.master_weights)
    print(f"wrote {arguments.out}; score it with: trit score --model {arguments.out}")
    return EXIT_OK
