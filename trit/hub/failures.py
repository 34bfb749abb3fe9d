# SPDX-License-Identifier: MIT
"""What can go wrong on the way to the Hub: what is tried again, and what is said."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from httpx import HTTPError, TransportError
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trit.base.errors import TritError, UnknownNameError, UserError, explain

# Seconds before the second try, doubled for each further one; tests shorten it.
BACKOFF_VARIABLE = "TRIT_HUB_BACKOFF_S"
_TRIES = 5
_LONGEST_WAIT_S = 60.0
_PASSING = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


def retrying(action: Callable[[], T], what: str, progress: Callable[[], int] = lambda: 0) -> T:
    """Do something with the Hub, again if the trouble may pass: connection lost, too many requests, server error.

    Args:
        action: what to do; it carries on where it was.
        what: its name, for the line that tells of a new try.
        progress: bytes that are there so far; after new ones the tries are counted afresh.

    Raises:
        HfHubHTTPError: as the action did, when the tries are used up or the error will not pass.
        TransportError: likewise.
    """
    first_wait_s = float(os.environ.get(BACKOFF_VARIABLE, "1"))
    tries, reached = 0, progress()
    while True:
        try:
            return action()
        except (HfHubHTTPError, TransportError) as error:
            tries = 1 if progress() > reached else tries + 1
            reached = progress()
            if tries >= _TRIES or (isinstance(error, HfHubHTTPError) and _status(error) not in _PASSING):
                raise
            asked_s = _retry_after_s(error)
            wait_s = min(first_wait_s * 2 ** (tries - 1) if asked_s is None else asked_s, _LONGEST_WAIT_S)
            print(f"{what}: {reason(error)}; trying again in {wait_s:.0f} s", flush=True)
            time.sleep(wait_s)


def reason(error: Exception) -> str:
    """An error as a few words: the HTTP status, or the first line of what it says."""
    if isinstance(error, HfHubHTTPError):
        return f"HTTP {_status(error)}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def explained(error: Exception, repo: str, revision: str) -> TritError:
    """One sentence about an error that stays: what it is and what to do."""
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, HfHubHTTPError):
        return explain(error)  # a file here, and not the Hub
    token = get_token()
    if isinstance(error, GatedRepoError):
        if token:
            return UserError(f"{repo} is gated and your token has no access; ask for it on {_page(repo)}")
        return UserError(f"{repo} is gated: agree to its terms on {_page(repo)}, then set HF_TOKEN to a token of yours")
    if isinstance(error, DisabledRepoError):
        return UserError(f"{repo} has been disabled on the Hub; use another model")
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{repo} has no revision {revision}; check what follows the @")
    if isinstance(error, RepositoryNotFoundError):
        private = "your token cannot read it" if token else "is private: then set HF_TOKEN"
        return UnknownNameError(f"{repo} is not on the Hub, or {private}; check its name")
    if isinstance(error, RemoteEntryNotFoundError):
        return UserError(f"{repo} lost a file while it was read ({reason(error)}); run this again")
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(f"HF_HUB_OFFLINE is set and {repo} is not there; unset it to download")
    status = _status(error) if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        return UserError("the Hub refuses your token (HTTP 401); set HF_TOKEN to a valid one, or unset it")
    if status == 403:
        return UserError(f"the Hub forbids access to {repo} (HTTP 403); check the rights of the token in HF_TOKEN")
    if status == 429:
        hint = "wait some minutes" if token else "wait some minutes, or set HF_TOKEN for a higher limit,"
        return TritError(f"the Hub takes no more requests from here for now (HTTP 429); {hint} and run this again")
    return TritError(
        f"the Hub at {constants.ENDPOINT} did not deliver {repo} ({reason(error)}); "
        "check the network and run this again, it carries on where it was"
    )


def not_a_hub(what: str) -> UserError:
    """The error for an answer that no Hub gives: of a network that wants a login, of a proxy, of a wrong address."""
    return UserError(
        f"what answers at {constants.ENDPOINT} is no Hub ({what}); log in to the network if it wants that, check "
        "HF_ENDPOINT and the proxy, and run this again"
    )


EXPLAINED = (HfHubHTTPError, HTTPError, OSError)
"""What :func:`explained` is for; our own errors are explained already."""


def _page(repo: str) -> str:
    return f"{constants.ENDPOINT}/{repo}"


def _status(error: HfHubHTTPError) -> int:
    return error.response.status_code


def _retry_after_s(error: Exception) -> float | None:
    """Seconds that the server asks to wait for; its other form, a date, is not used by the Hub."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return float(value) if value.isdigit() else None
