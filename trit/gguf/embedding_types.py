# SPDX-License-Identifier: MIT
"""The types that --quant-embd takes. Standard library only: set-up checks its command line before numpy is there."""

# q2_0: for models whose embedding and head are ternary in groups, as Ternary-Bonsai's are.
EMBEDDING_TYPES = ("f16", "f32", "bf16", "q8_0", "q6_k", "q5_k", "q4_k", "q5_1", "q5_0", "q4_1", "q4_0", "q2_0")
