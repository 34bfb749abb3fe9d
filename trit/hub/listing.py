# SPDX-License-Identifier: MIT
"""What a repository holds at one commit: names, sizes and hashes of its files."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from httpx import ReadTimeout
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

from trit.base.files import stand_in, stays_inside
from trit.hub.failures import not_a_hub, retrying

# The largest repositories have some megabytes of listing.
MAX_LISTING_BYTES, LONGEST_LISTING_S = 1 << 26, 120.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
# git's sha1 or a sha256.
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Attributes:
        name: its path in the repository.
        size: in bytes.
        digest: hexadecimal: sha256 of the content (64 digits, large files) or git's sha1 of it (40 digits).
        url: where it is downloaded from, at the listing's commit.
    """

    name: str
    size: int
    digest: str
    url: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a file's; the digest becomes a part of a file's name here.

        Raises:
            UserError: whoever answered is no Hub.
        """
        if not isinstance(self.size, int) or self.size < 0 or not _DIGEST.fullmatch(self.digest):
            raise not_a_hub(f"{self.name} has the size {self.size!r} and the hash {self.digest[:80]!r}")


@dataclass(frozen=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repo: ``ORG/NAME``.
        revision: what was asked for.
        commit: the commit that it stands for, so that all files are of one moment.
        names: every file.
    """

    repo: str
    revision: str
    commit: str
    names: tuple[str, ...]
    _known: dict[str, tuple[int, str]]

    def file(self, name: str) -> RemoteFile:
        """Size and hash of a file; asks the server once more where the listing had neither (some mirrors)."""
        url = hf_hub_url(self.repo, name, revision=self.commit, endpoint=constants.ENDPOINT)
        if name in self._known:
            return RemoteFile(name, *self._known[name], url)
        found = retrying(lambda: get_hf_file_metadata(url), f"asking for {name}")
        if found.size is None or found.etag is None:
            raise not_a_hub(f"{url} has no size or no ETag")
        return RemoteFile(name, found.size, found.etag, url)


def list_repository(repo: str, revision: str) -> Listing:
    """Ask the Hub for a repository's files.

    Raises:
        HfHubHTTPError: not there, no access, no such revision, or the Hub has trouble.
        TransportError: the Hub cannot be reached.
        UserError: what answers is no Hub: a page for a login, say.
    """
    validate_repo_id(repo)
    info = retrying(lambda: _model_info(repo, revision), f"asking for {repo}")
    commit, siblings = info.get("sha"), info.get("siblings") or []
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise not_a_hub(f"the commit of {repo} is {str(commit)[:80]!r}")
    known = {}
    names = []
    for sibling in siblings:
        name = sibling["rfilename"]
        if not stays_inside(name):
            continue  # nothing of a model has such a name
        names.append(name)
        size, digest = sibling.get("size"), (sibling.get("lfs") or {}).get("sha256") or sibling.get("blobId")
        if size is not None and digest:
            known[name] = (size, str(digest))
    return Listing(repo, revision, commit, tuple(names), known)


def _model_info(repo: str, revision: str) -> dict[str, Any]:
    """What the Hub says of a repository, read up to a limit: huggingface_hub's own call has none."""
    url = f"{constants.ENDPOINT}/api/models/{repo}/revision/{quote(revision, safe='')}"
    body, begun = bytearray(), time.monotonic()
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    arguments: dict[str, Any] = {"params": {"blobs": "true"}, "headers": build_hf_headers(), "timeout": timeout_s}
    with get_session().stream("GET", url, **arguments) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes():
            body += block
            if len(body) > MAX_LISTING_BYTES:
                raise not_a_hub(f"the listing of {repo} has more than {MAX_LISTING_BYTES:,} bytes")
            if time.monotonic() - begun > LONGEST_LISTING_S:
                raise ReadTimeout(f"the listing of {repo} takes more than {LONGEST_LISTING_S:.0f} s")
    try:
        info = json.loads(body)
    except (ValueError, RecursionError):
        raise not_a_hub(f"the listing of {repo} {stand_in(bytes(body[:1024])) or 'is no JSON'}") from None
    if not isinstance(info, dict):
        raise not_a_hub(f"the listing of {repo} is no JSON object")
    return info
