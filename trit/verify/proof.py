# SPDX-License-Identifier: MIT
"""All checks of one model, with as few starts of the engine as they need."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.verify import engine
from trit.verify.embeddings import check_embeddings
from trit.verify.layers import check_layers
from trit.verify.logits import check_logits
from trit.verify.reference import build
from trit.verify.report import Check
from trit.verify.stored import TorchCheckpoint
from trit.verify.texts import TEXT, check_template, check_tokens, load_tokenizer
from trit.verify.weights import GgufFile, check_weights

# Sequences whose hidden states are compared: short, since each rounding that falls otherwise spreads to what follows.
_SEQUENCES, _LENGTH = 8, 16


def prove(args: argparse.Namespace, folder: Path) -> Iterator[Check]:
    """Compare weights, tokens, chat prompts, hidden states, log-probabilities or embeddings.

    Args:
        args: The command line's.
        folder: For temporary files.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    torch.set_num_threads(args.threads)
    checkpoint = TorchCheckpoint(args.checkpoint, args.master_weights)
    file = GgufFile(args.model)
    weights = check_weights(checkpoint, file)
    yield weights
    tokenizer = load_tokenizer(args.checkpoint)
    text = args.text or TEXT
    check_input(text)
    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    if len(ids) < 2 * args.context or len(ids) < _SEQUENCES * _LENGTH:
        raise UserError(f"--text {text}: is {len(ids)} tokens long, the checks need {2 * args.context} or more")
    reference = build(checkpoint, file, args.activations)
    with engine.hidden_server(file.path, args.threads, args.context) as server:
        yield check_tokens(tokenizer, server)
        yield check_template(args.checkpoint, file, server)
        sequences = [ids[i * _LENGTH : (i + 1) * _LENGTH] for i in range(_SEQUENCES)]
        yield from check_layers(reference, file, sequences, server, folder, args.threads)
    yield from check_logits(reference, file, text, folder, args.context, min(args.chunks, len(ids) // args.context))
    yield check_embeddings(reference, tokenizer, args.checkpoint, file, args.threads)
