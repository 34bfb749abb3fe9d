# SPDX-License-Identifier: MIT
"""An encoding is in all of its places, and the places say the same."""

from __future__ import annotations

import pytest

from tests.support.encoding_places import PLACES, faults


@pytest.mark.parametrize("place", PLACES)
def test_every_encoding_is_there(place: str) -> None:
    assert not faults(place), "\n".join(faults(place))
