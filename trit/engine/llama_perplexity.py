# SPDX-License-Identifier: MIT
"""Running llama-perplexity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import CommandError, TritError, UserError
from trit.base.places import engine_binary
from trit.base.processes import run
from trit.engine import confinement, perplexity_output

# Keys and values of attention in float32, no flash attention: what is measured is the linear layers' arithmetic.
PRECISE = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
# Chunks are computed together up to this many tokens; more would only keep more logits in memory.
_BATCH_TOKENS = 512


class TooShort(UserError):
    """A text has fewer than two contexts of tokens, which llama-perplexity asks for."""

    def __init__(self, text: Path, tokens: int, context: int) -> None:
        largest = tokens // 2
        advice = f"take -c {largest} or less, or a longer text" if largest >= 16 else "take a longer text"
        super().__init__(f"{text}: has {tokens} tokens, and a context of {context} needs {2 * context}; {advice}")
        self.tokens = tokens


@dataclass(frozen=True)
class Engine:
    """How llama-perplexity is to be run.

    Attributes:
        threads: To compute with; None for its own default.
        log: File that gets its output, appended.
        program: Another llama-perplexity than that of the build.
        flags: More flags.
        on_line: Called with each line of output.
    """

    threads: int | None
    log: Path
    program: Path | None = None
    flags: Sequence[str] = ()
    on_line: Callable[[str], None] | None = None

    def perplexity(
        self, gguf: Path, text: Path, context: int, chunks: int | None = None, saved: Path | None = None
    ) -> list[str]:
        """The output of a run over the first ``chunks`` pieces of a text.

        Args:
            gguf: the model.
            text: UTF-8.
            context: tokens of each piece.
            chunks: how many; None for all.
            saved: file for the log-probabilities.

        Raises:
            TooShort: the text has not two contexts of tokens.
            TritError: the run failed; says its last words.
        """
        words: list[str | Path] = ["-f", text]
        words += ["--chunks", str(chunks)] if chunks else []
        words += ["--save-all-logits", saved] if saved else []
        lines = self._run(gguf, words, context)
        # The program ends with 0 all the same.
        if (tokens := perplexity_output.too_short(lines)) is not None:
            raise TooShort(text, tokens, context)
        if saved and not saved.is_file():
            program = self.program or engine_binary("llama-perplexity")
            raise TritError(f"{program} wrote no log-probabilities of {gguf}; it has to be an llama-perplexity")
        return lines

    def divergence(self, gguf: Path, reference: Path, context: int) -> list[str]:
        """The output of a run over the tokens of a file of log-probabilities, which has to have this context."""
        return self._run(gguf, ["--kl-divergence", "--kl-divergence-base", reference], context)

    def _run(self, gguf: Path, words: Sequence[str | Path], context: int) -> list[str]:
        program = self.program or engine_binary("llama-perplexity")
        batch = context * max(1, _BATCH_TOKENS // context)
        command = [program, "-m", gguf, *words, "-c", str(context), "-b", str(batch), *self.flags]
        if self.threads:
            command += ["-t", str(self.threads)]
        what, sandbox = f"llama-perplexity on {gguf}", confinement.of_tool(command)
        try:
            return run(command, what, self.log, cwd=Path.cwd(), on_line=self.on_line, sandbox=sandbox)
        except CommandError as error:
            last = " | ".join(error.tail[-3:])
            raise TritError(f"llama-perplexity failed on {gguf}: {last or error}") from error
