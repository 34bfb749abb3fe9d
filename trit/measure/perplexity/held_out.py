# SPDX-License-Identifier: MIT
"""The text that the bundled model's perplexity is measured over: stories that no training run may see.

``trit held-out`` writes the shipped file again, byte for byte; ``--out`` and ``--stories`` make
another one. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from trit.base.errors import EXIT_OK
from trit.base.files import atomic_output, check_output
from trit.base.flags import SEEDS, ArgumentParser, a_path, whole
from trit.base.places import BUNDLED_MODEL
from trit.train.story import MAX_SENTENCES, held_out_text

HELD_OUT = BUNDLED_MODEL / "held-out.txt"
# The model has learned to predict answers, not the stories in front of them.
MARK = "Answer:"
# Long enough that a counted answer has its whole story before it, not much longer than what training shows.
CONTEXT = 256
SEED, STORIES = 2026, 240


def make_text(seed: int = SEED, stories: int = STORIES) -> str:
    """As many stories of each length, in all forms of the question that training has."""
    return held_out_text(Random(seed), stories, range(1, MAX_SENTENCES + 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the text."""
    parser = ArgumentParser(prog="trit held-out", description=(__doc__ or "")[:78])
    parser.add_argument("--out", type=a_path, default=HELD_OUT, help="file to write (default: the shipped one)")
    parser.add_argument("--seed", type=SEEDS, default=SEED, help="of the stories (default: %(default)s)")
    parser.add_argument("--stories", type=whole(1), default=STORIES, help="how many (default: %(default)s)")
    args = parser.parse_args(argv)
    check_output("--out", args.out)
    with atomic_output(args.out) as partial:
        partial.write_text(make_text(args.seed, args.stories), encoding="ascii", newline="\n")
    print(f"{args.out}: {args.stories} stories, {args.out.stat().st_size} bytes")
    return EXIT_OK
