# SPDX-License-Identifier: MIT
"""Configurations of the generated kernels, and the rules that a configuration has to keep."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli import UserError

PANEL_ROWS = 64  # include/trit.h
STEP_INPUTS = 16  # of a panel of 2 bits: src/panel.cpp
MOST_ROWS = 8192


@dataclass(frozen=True)
class Isa:
    """What a template has to know about an instruction set.

    Attributes:
        name: the vocabulary, src/lookup/<name>.h.
        guard: macro of src/tier.h that is defined where the set may exist.
        intrinsics: the compiler's header.
        target: argument of TRIT_TARGET_BEGIN.
        register_bytes: of one vector register.
    """

    name: str
    guard: str
    intrinsics: str
    target: str
    register_bytes: int


AVX2 = Isa("avx2", "TRIT_X86", "immintrin.h", '"avx2"', 32)
AVX512 = Isa("avx512", "TRIT_X86", "immintrin.h", '"avx512f,avx512bw,avx512vl,avx512dq"', 64)
NEON = Isa("neon", "TRIT_ARM64", "arm_neon.h", '"+simd"', 16)

# Tier (a file in src/tiers/) -> the instruction set of its look-up kernels.
ISA_OF_TIER = {
    "avx2": AVX2,
    "avx_vnni": AVX2,
    "avx512_vnni": AVX512,
    "avx512_vbmi": AVX512,
    "avx512_amx": AVX512,
    "neon": NEON,
    "neon_dotprod": NEON,
    "neon_i8mm": NEON,
}


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
    def entry_bytes(self) -> int:
        """Bytes of a table's entry: one 16-bit sum for each token."""
        return 2 * self.tokens

    @property
    def inputs(self) -> int:
        """Inputs of one pass over the rows."""
        return STEP_INPUTS * self.steps

    @property
    def passes_per_widening(self) -> int:
        """Passes whose sums fit into 16 bits: each input adds at most 128."""
        return 32767 // (128 * self.inputs)

    @property
    def name(self) -> str:
        """File stem and symbol."""
        return f"lookup_{self.tier}_t{self.tokens}_s{self.steps}_r{self.rows}"

    @property
    def flags(self) -> str:
        """What `python -m utils.codegen` takes to make it again."""
        return (
            f"lookup --tier {self.tier} --registers {self.registers} --steps {self.steps} "
            f"--rows {self.rows} --least-tokens {self.least_tokens}"
        )
