# SPDX-License-Identifier: MIT
"""trit.hub on a disk that fills up while a file comes."""

# The fixtures come from test_hub.py: to ruff their names are imported, unused, and defined again as arguments.
# ruff: noqa: F401, F811

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.hub.test_hub import WANTED, fetch, folder, hub, present
from tests.support.hub_server import HubServer
from trit.base.errors import TritError
from trit.hub import transfer


def test_a_disk_that_fills_up_is_no_trouble_of_the_hub(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_write", full)
        with pytest.raises(TritError, match=r"config\.json.* cannot be written: the disk is full") as error:
            fetch(folder)
    assert "Hub" not in str(error.value)
    fetch(folder)
    assert present(folder) == WANTED
