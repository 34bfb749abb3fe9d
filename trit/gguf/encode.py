# SPDX-License-Identifier: MIT
"""A decoded matrix in the terms of ``trit.gguf.encodings``, as an encoding can take it, and back from its bytes.

Nothing is lost here; what becomes of a scale that an encoding cannot hold is ``check_scale``'s to say.
"""

from __future__ import annotations

import numpy as np

from trit.base.errors import UserError
from trit.base.flags import called
from trit.gguf.decode import Bytes, Decoded, decode
from trit.gguf.encodings import Encoding, Scale, Ternary


def for_encoding(decoded: Decoded, encoding: Encoding, name: str) -> tuple[Ternary, Scale]:
    """The matrix and its scale: one number if all that is not zero shares it, else one for each group.

    Groups smaller than the encoding's blocks are put together where those in a block agree.

    Raises:
        UserError: the matrix holds +2, which the encoding cannot; names the tensor and what can.
    """
    n, k = decoded.shape
    twos = int((decoded.values > 1).sum())
    if twos and not encoding.holds_two:
        raise UserError(
            f"{name}: holds +2 {twos:,} times ({100 * twos / (n * k):.2f} % of its weights), which {encoding.name} "
            f"cannot; use {called('--outtype')} q2_0"
        )
    groups, blocks = decoded.scales.shape[1], k // encoding.block
    scales = np.broadcast_to(decoded.scales, (n, groups))
    values = decoded.values
    used = values.reshape(n, groups, -1).any(axis=2)
    if (used & (scales == 0)).any():  # whatever its codes are, such a group is zeros
        used &= scales != 0
        values = np.where(used.repeat(k // groups, axis=1), values, np.int8(0))
    different = np.unique(scales[used])
    if different.size <= 1:
        # A matrix of zeros keeps the scale that it has; without one, 1 is as good as any.
        return values, float(different[0] if different.size else scales.max()) or 1.0
    if groups % blocks == 0:
        inner = np.where(used, scales, 0).reshape(n, blocks, -1)
        highest = inner.max(axis=2)
        if ((inner == 0) | (inner == highest[..., None])).all():
            return values, highest
    return values, np.where(used, scales, np.float32(0))


def unpack(encoding: Encoding, data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
    """As the encoding's own function, but +2 is a weight like the others where the encoding has it."""
    if not encoding.ternary:
        return encoding.unpack(data, n, k, name)
    decoded = decode(encoding.name, data, n, k, name)
    return decoded.values, float(decoded.scales[0, 0]) if decoded.scales.size == 1 else decoded.scales
