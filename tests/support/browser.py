# SPDX-License-Identifier: MIT
"""Chromium without a window, driven by playwright; tests of pages skip where the system has none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A user namespace for its own sandbox is not to be had in every container; it shows nothing but our own server's pages.
_FLAGS = ["--no-sandbox", "--disable-gpu"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's own browser."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        reason = f"no browser is there, one of {', '.join(_NAMES)}"
        if os.environ.get("TRIT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()
