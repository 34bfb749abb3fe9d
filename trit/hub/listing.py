# SPDX-License-Identifier: MIT
"""What a repository holds at one commit: names, sizes and hashes of its files."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url

from trit.base.errors import TritError
from trit.hub.failures import retrying


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
            raise TritError(f"{url} has no size or no ETag, so it is not from a Hub; check HF_ENDPOINT")
        return RemoteFile(name, found.size, found.etag, url)


def list_repository(repo: str, revision: str) -> Listing:
    """Ask the Hub for a repository's files.

    Raises:
        HfHubHTTPError: not there, no access, no such revision, or the Hub has trouble.
        TransportError: the Hub cannot be reached.
    """
    api = HfApi(endpoint=constants.ENDPOINT)
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    info = retrying(
        lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=timeout_s), f"asking for {repo}"
    )
    siblings = info.siblings or []
    known = {}
    for sibling in siblings:
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        if sibling.size is not None and digest:
            known[sibling.rfilename] = (sibling.size, digest)
    return Listing(repo, revision, str(info.sha), tuple(sibling.rfilename for sibling in siblings), known)
