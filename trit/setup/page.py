# SPDX-License-Identifier: MIT
"""The engine's chat page, ready made: trit/release/page.py builds it, set-up lays it where the engine's build looks.

``3rdparty/page/page.json`` pins the file beside it, as the lock pins the engine's source. Standard library only.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from trit.base.errors import UserError
from trit.base.files import names_file
from trit.base.places import ROOT
from trit.setup.context import sha256

PAGE_DIR = ROOT / "3rdparty" / "page"
PAGE = "page.tar.gz"
PAGE_LOCK = "page.json"
# In the engine's tree: its build embeds what it finds there, and looks no further.
_PLACE = Path("tools") / "ui" / "dist"


def page_files() -> list[Path]:
    """The pinned file and what pins it."""
    return [PAGE_DIR / PAGE, PAGE_DIR / PAGE_LOCK]


def unpack_page(tree: Path) -> None:
    """Unpack the page into the engine's source tree.

    Raises:
        UserError: the file is not the one that is pinned.
    """
    page, lock = page_files()
    if sha256(page) != json.loads(lock.read_text(encoding="utf-8"))["sha256"]:
        raise UserError(f"{page}: is not the file that {PAGE_LOCK} beside it pins; restore both from the repository")
    with tarfile.open(page) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None or path.is_absolute() or ".." in path.parts:
                continue
            place = tree / _PLACE / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with names_file(place), place.open("wb") as file:
                shutil.copyfileobj(stream, file)
