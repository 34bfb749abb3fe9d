# SPDX-License-Identifier: MIT
"""Download the files of a model that the converter needs: ``python -m utils.setup.hub ORG/NAME --to FOLDER``.

Runs in the environment that set-up has made, for it needs the ``huggingface_hub`` package.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from utils.cli import EXIT_OK, TritError, UserError, run_main

_ALWAYS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)


def wanted_files(names: Sequence[str]) -> list[str]:
    """The files of a repository to fetch: configuration, tokenizer and safetensors; GGUF only if there are none.

    Raises:
        UserError: no weights that we can read.
    """
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith((".safetensors", ".safetensors.index.json"))]
    weights = weights or [name for name in top if fnmatch(name, "ggml-model-*.gguf")]
    if not weights:
        raise UserError("the repository holds neither safetensors nor a ggml-model-*.gguf; name one that does")
    return sorted({name for name in top if any(fnmatch(name, pattern) for pattern in _ALWAYS)} | set(weights))


def main(argv: Sequence[str] | None = None) -> int:
    """Download and print one line ``got FILE`` for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", help="ORG/NAME on the Hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit")
    parser.add_argument("--to", type=Path, required=True, help="folder that the files go into")
    args = parser.parse_args(argv)

    from httpx import HTTPError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(args.repo, revision=args.revision)
        names = wanted_files([sibling.rfilename for sibling in info.siblings or []])
        # By its commit, so that all files are of one moment.
        snapshot_download(args.repo, revision=info.sha, allow_patterns=names, local_dir=args.to)
    except GatedRepoError as error:
        raise UserError(f"{args.repo} asks for consent: give it on its page, then set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{args.repo} has no revision {args.revision}; check what follows the @") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{args.repo} is not on the Hub, or is private (then set HF_TOKEN); check its name") from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TritError(
            f"the Hub did not deliver {args.repo} ({reason}); check the network and run this again"
        ) from error
    for name in names:
        print(f"got {name}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
