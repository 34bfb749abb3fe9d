# SPDX-License-Identifier: MIT
"""The types that --quant-embd takes. Standard library only: set-up checks its command line before numpy is there."""

# q2_0: for models whose embedding and head are ternary in groups, as Ternary-Bonsai's are.
EMBEDDING_TYPES = ("f16", "f32", "bf16", "q8_0", "q6_k", "q5_k", "q4_k", "q5_1", "q5_0", "q4_1", "q4_0", "q2_0")


def default_embedding_type(outtype: str, columns: int) -> str:
    """The type that embedding and head get if none is asked for.

    In a file of ternary matrices q6_k, because the head is read whole for every token; q8_0 or f16 where ``columns``
    (the hidden size) is not a multiple of q6_k's block of 256. In a file of plain floats the floats' own type.
    """
    if outtype in {"f16", "f32"}:
        return outtype
    return "q6_k" if columns % 256 == 0 else "q8_0" if columns % 32 == 0 else "f16"
