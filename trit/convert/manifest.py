# SPDX-License-Identifier: MIT
"""Where a converted file comes from: the ``trit.*`` keys of its metadata (docs/formats.md lists them)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gguf import GGUFWriter
from tqdm import tqdm

from trit.base.errors import UserError
from trit.base.host import usable_cpus
from trit.base.places import ROOT
from trit.base.processes import capture

_SOURCE = re.compile(r"([^@\s]+)(?:@([^@\s]+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What huggingface_hub notes beside files that it downloaded into a folder: commit, ETag, time, one a line.
_HUB_NOTES = Path(".cache", "huggingface", "download")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What is known of the origin of a checkpoint, or of a GGUF file that is converted again.

    Attributes:
        repository: ORG/NAME on the Hub, or whatever --source named; empty if nothing is known.
        revision: Commit, tag or branch; empty if nothing is known.
        hashes: File name -> sha256 (hexadecimal) of every file that holds weights.
    """

    repository: str
    revision: str
    hashes: dict[str, str]

    @classmethod
    def of(cls, directory: Path, files: Sequence[Path], source: str | None, progress: bool) -> Manifest:
        """Hash the weight files and find out the revision.

        huggingface_hub's notes name the revision only as long as the files are what it downloaded: where the Hub gave a
        sha256 as ETag (it does for all large files), it is compared.

        Raises:
            UserError: --source is not ORG/NAME[@REVISION], or a file cannot be read.
        """
        repository, revision = parse_source(source) if source else ("", "")
        hashes = dict(zip((file.name for file in files), _hash_all(files, progress), strict=True))
        return cls(repository, _hub_revision(directory, hashes) or revision, hashes)

    def or_of(self, metadata: Mapping[str, Any]) -> Manifest:
        """With the repository and revision that a GGUF file's own metadata name, if nothing else says where it is from.

        The hashes stay those of the file itself.
        """
        if self.repository or self.revision:
            return self
        named = (metadata.get(key) for key in ("trit.source.repository", "trit.source.revision"))
        repository, revision = (value if isinstance(value, str) else "" for value in named)
        return replace(self, repository=repository, revision=revision)

    def write(self, writer: GGUFWriter, outtype: str, embedding_type: str | None) -> None:
        """Add the keys; what is not known is left out."""
        if self.repository:
            writer.add_string("trit.source.repository", self.repository)
        if self.revision:
            writer.add_string("trit.source.revision", self.revision)
        writer.add_array("trit.source.files", list(self.hashes))
        writer.add_array("trit.source.sha256", list(self.hashes.values()))
        if commit := converter_commit():
            writer.add_string("trit.converter.commit", commit)
        writer.add_string("trit.encoding.ternary", outtype)
        if embedding_type:
            writer.add_string("trit.encoding.embedding", embedding_type)


def parse_source(text: str) -> tuple[str, str]:
    """``ORG/NAME@REVISION`` -> its two parts; raises UserError for what has spaces or more than one @."""
    match = _SOURCE.fullmatch(text)
    if not match:
        raise UserError(f"--source {text}: expected ORG/NAME or ORG/NAME@REVISION")
    return match[1], match[2] or ""


def _hash_all(files: Sequence[Path], progress: bool) -> list[str]:
    """The files' sha256, several files at a time."""
    total = sum(file.stat().st_size for file in files)
    shown = None if progress else True
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="hashing", disable=shown, leave=False) as bar,
        ThreadPoolExecutor(usable_cpus()) as pool,
    ):
        return list(pool.map(lambda file: _sha256(file, bar), files))


def _sha256(path: Path, bar: tqdm) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _hub_revision(directory: Path, hashes: dict[str, str]) -> str:
    """The commit that huggingface_hub downloaded all these files of; empty if it did not, or they have changed."""
    commits = set()
    for name, sha256 in hashes.items():
        try:
            lines = (directory / _HUB_NOTES / f"{name}.metadata").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ""
        if len(lines) < 2 or not _COMMIT.fullmatch(lines[0]):
            return ""
        if _SHA256.fullmatch(lines[1]) and lines[1] != sha256:
            return ""
        commits.add(lines[0])
    return commits.pop() if len(commits) == 1 else ""


def converter_commit() -> str:
    """The commit of this checkout, ``-dirty`` behind it if tracked files were changed; empty without git."""
    git: list[str | Path] = ["git", "-C", ROOT]
    code, top = capture([*git, "rev-parse", "--show-toplevel"])
    if code != 0 or Path(top.strip()) != ROOT:
        return ""
    code, commit = capture([*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
    return commit.strip() if code == 0 else ""
