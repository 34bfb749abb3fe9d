# SPDX-License-Identifier: MIT
"""Configurations of the generated kernels, and the rules that a configuration has to keep."""

from __future__ import annotations

from dataclasses import dataclass, fields

from utils.cli import UserError

PANEL_ROWS = 64  # include/trit.h
STEP_INPUTS = 16  # of a panel of 2 bits: src/kernels/panel.cpp
MOST_ROWS = 8192
MOST_INPUTS = 1 << 15
MOST_TABLE_TOKENS = 16


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    Attributes:
        name: its kernels are in src/kernels/lookup/lookup_<name>-inl.h and table_<name>-inl.h.
        register_bytes: of one vector register.
    """

    name: str
    register_bytes: int


AVX2 = Isa("avx2", 32)
AVX512 = Isa("avx512", 64)
AVX512_VBMI = Isa("avx512_vbmi", 64)
NEON = Isa("neon", 16)

# Tier (in src/kernels/tiers/) -> the instruction set of its look-up kernels by tables over tokens. "avx512" is none of
# the tiers: CPUs with AVX-512 and without VNNI, which have tier avx2. Its kernels are nobody's default.
ISA_OF_TIER = {
    "avx2": AVX2,
    "avx_vnni": AVX2,
    "avx512": AVX512,
    "avx512_vnni": AVX512,
    "avx512_vbmi": AVX512,
    "avx512_amx": AVX512,
    "neon": NEON,
    "neon_dotprod": NEON,
    "neon_i8mm": NEON,
}

# The same for TL1 and TL2.
TABLE_ISA_OF_TIER = {tier: isa for tier, isa in ISA_OF_TIER.items() if tier != "avx512"}
TABLE_ISA_OF_TIER |= {"avx512_vbmi": AVX512_VBMI, "avx512_amx": AVX512_VBMI}


@dataclass(frozen=True)
class Lookup:
    """Prefill by tables over tokens.

    Attributes:
        tier: the tier of kernels that it stands beside.
        registers: vector registers of 16-bit sums; with the register's width, the tokens of one call.
        steps: steps of 16 inputs in one pass over the rows; four tables each.
        rows: rows that one set of tables serves; a multiple of 64.
        least_tokens: calls with fewer tokens are left to the tier's own kernel.
    """

    tier: str
    registers: int = 2
    steps: int = 2
    rows: int = 2560
    least_tokens: int = 24

    def __post_init__(self) -> None:
        """Check the rules; raises UserError with the one that is broken."""
        if self.tier not in ISA_OF_TIER:
            raise UserError(f"--tier {self.tier}: look-up kernels exist for {', '.join(ISA_OF_TIER)}")
        if self.registers not in (1, 2, 4):
            raise UserError(f"--registers {self.registers}: expected 1, 2 or 4, so that entries lie at powers of two")
        if self.steps not in (1, 2):
            raise UserError(f"--steps {self.steps}: expected 1 or 2, because matrices have K % {2 * STEP_INPUTS} == 0")
        if self.rows % PANEL_ROWS != 0 or not PANEL_ROWS <= self.rows <= MOST_ROWS:
            raise UserError(
                f"--rows {self.rows}: expected a multiple of {PANEL_ROWS} (a panel) from {PANEL_ROWS} to {MOST_ROWS}"
            )
        if not 1 <= self.least_tokens <= self.tokens:
            raise UserError(f"--least-tokens {self.least_tokens}: expected 1 to {self.tokens}, the tokens of one call")

    @property
    def isa(self) -> Isa:
        """The instruction set."""
        return ISA_OF_TIER[self.tier]

    @property
    def tokens(self) -> int:
        """Tokens of one call."""
        return self.registers * self.isa.register_bytes // 2

    @property
    def name(self) -> str:
        """File stem and symbol."""
        return f"lookup_{self.tier}_t{self.tokens}_s{self.steps}_r{self.rows}"

    @property
    def constants(self) -> dict[str, object]:
        """What src/kernels/lookup/lookup-inl.h has to know."""
        return {
            "trit_packing kPacking": "TRIT_PACKING_2_BITS",
            "int kRegisters": self.registers,
            "int kSteps": self.steps,
            "int kRows": self.rows,
            "int kLeastTokens": self.least_tokens,
        }

    @property
    def flags(self) -> str:
        """What `python -m utils.codegen` takes to make it again."""
        return (
            f"lookup --tier {self.tier} --registers {self.registers} --steps {self.steps} "
            f"--rows {self.rows} --least-tokens {self.least_tokens}"
        )


SPLITS = ("nibbles", "bytes")


@dataclass(frozen=True)
class Table:
    """Few tokens by tables over inputs.

    Attributes:
        packing: "tl1" or "tl2": 2 or 3 weights for each index.
        tier: the tier of kernels that it stands beside.
        rows: BM, rows of one call, for which the tables are built once; a multiple of 64.
        inputs: BK, inputs whose tables are there at the same time; a multiple of a panel's step.
        block: bm, rows whose sums are in registers.
        unroll: vectors of indices whose sums stay in 8 bits; None: 2, or as many as fit.
        split: what a table's two parts are: "nibbles" of the activations (sums of both fit into 8 bits), or the two
            "bytes" of 16-bit sums.
        tokens: most tokens of a call.
        ahead: bytes of prefetch.
    """

    packing: str
    tier: str
    rows: int = 2560
    inputs: int = 6912
    block: int = 64
    unroll: int | None = None
    split: str = "nibbles"
    tokens: int = 4
    ahead: int = 4096

    def __post_init__(self) -> None:
        """Check the rules; raises UserError with the one that is broken."""
        if self.tier not in TABLE_ISA_OF_TIER:
            raise UserError(f"--tier {self.tier}: {self.packing} kernels exist for {', '.join(TABLE_ISA_OF_TIER)}")
        if self.rows % PANEL_ROWS != 0 or not PANEL_ROWS <= self.rows <= MOST_ROWS:
            raise UserError(
                f"--BM {self.rows}: expected a multiple of {PANEL_ROWS} (a panel) from {PANEL_ROWS} to {MOST_ROWS}"
            )
        step = self.step_inputs
        if self.inputs % step != 0 or not step <= self.inputs <= MOST_INPUTS:
            raise UserError(
                f"--BK {self.inputs}: expected a multiple of {step} (a panel's step) from {step} to {MOST_INPUTS}"
            )
        if self.block not in self.blocks:
            raise UserError(f"--bm {self.block}: expected {' or '.join(map(str, self.blocks))} rows")
        if self.split not in SPLITS:
            raise UserError(f"--split {self.split}: expected {' or '.join(SPLITS)}")
        most = self.most_unroll
        if not 1 <= self.turn <= most:
            reason = f"two look-ups of {self.group} inputs each reach {16 * self.group} of 127"
            if self.split == "bytes":
                reason = "nothing stays in 8 bits with --split bytes"
            raise UserError(f"--unroll {self.turn}: expected {'1' if most == 1 else f'1 to {most}'}, because {reason}")
        if not 1 <= self.tokens <= MOST_TABLE_TOKENS:
            raise UserError(f"--tokens {self.tokens}: expected 1 to {MOST_TABLE_TOKENS}")
        if not 0 <= self.ahead <= 1 << 16:
            raise UserError(f"--ahead {self.ahead}: expected 0 to {1 << 16} bytes")

    @property
    def isa(self) -> Isa:
        """The instruction set."""
        return TABLE_ISA_OF_TIER[self.tier]

    @property
    def signs(self) -> bool:
        """Whether a step has a vector of signs."""
        return self.packing == "tl2"

    @property
    def group(self) -> int:
        """Inputs of one index."""
        return 3 if self.signs else 2

    @property
    def step_vectors(self) -> int:
        """Vectors of indices that are looked up in one go."""
        return 4 if self.signs else 8

    @property
    def step_inputs(self) -> int:
        """Inputs of these vectors, two indices for each row."""
        return 2 * self.group * self.step_vectors

    @property
    def blocks(self) -> tuple[int, ...]:
        """What `block` may be: one register of rows, or a few."""
        return tuple(rows for rows in (16, 32, 64) if rows >= self.isa.register_bytes)

    @property
    def most_unroll(self) -> int:
        """Vectors, two look-ups each, whose sums of `group` parts of at most 8 fit into 8 bits."""
        return 1 if self.split == "bytes" else 127 // (2 * 8 * self.group)

    @property
    def turn(self) -> int:
        """Vectors whose sums stay in 8 bits."""
        return min(2, self.most_unroll) if self.unroll is None else self.unroll

    @property
    def constants(self) -> dict[str, object]:
        """What src/kernels/lookup/table-inl.h has to know."""
        return {
            "trit_packing kPacking": f"TRIT_PACKING_{self.packing.upper()}",
            "int kRows": self.rows,
            "int kInputs": self.inputs,
            "int kBlock": self.block,
            "int kUnroll": self.turn,
            "bool kNibbles": "true" if self.split == "nibbles" else "false",
            "int kTokens": self.tokens,
            "size_t kAhead": self.ahead,
        }

    @property
    def name(self) -> str:
        """File stem and symbol."""
        return "_".join(
            [self.packing, self.tier, f"{self.rows}x{self.inputs}x{self.block}", *self._rest("u", "", "t", "a")]
        )

    @property
    def flags(self) -> str:
        """What `python -m utils.codegen` takes to make it again."""
        tile = f"--BM {self.rows} --BK {self.inputs} --bm {self.block}"
        rest = self._rest("--unroll ", "--split ", "--tokens ", "--ahead ")
        return " ".join([f"{self.packing} --tier {self.tier} {tile}", *rest])

    def _rest(self, *labels: str) -> list[str]:
        """What is not its default, labelled: unroll, split, tokens, ahead."""
        names = ("unroll", "split", "tokens", "ahead")
        defaults = {field.name: field.default for field in fields(self)}
        pairs = [
            (label, getattr(self, name))
            for label, name in zip(labels, names, strict=True)
            if getattr(self, name) != defaults[name]
        ]
        return [f"{label}{value}" for label, value in pairs]
