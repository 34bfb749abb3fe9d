# SPDX-License-Identifier: MIT
"""Models by name from an installed package: what tests/library proves of the code, with the wheel and its engine."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.release.conftest import Trit
from tests.support.hub_server import HubServer, Repo
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, gguf_path
from trit.library.store import Store


def test_two_pulls_damage_and_a_wrong_name(trit: Trit, tmp_path: Path, engine_bin: Path) -> None:
    with HubServer() as hub:
        hub.repos["org/ready"] = Repo({"ready-i2_s.gguf": gguf_path(BUNDLED_MODEL).read_bytes()})
        hub_variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": ""}

        def ask(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
            return trit(*words, packages=True, **hub_variables, **more)

        with ThreadPoolExecutor() as pool:
            both = list(pool.map(lambda _: ask("pull", "org/ready", "--tune-seconds", "0"), range(2)))
        assert [done.returncode for done in both] == [0, 0], both
        assert len(hub.ranges("/storage/")) == 1, "one of them has waited"
        store = Store(tmp_path / "home" / "store")
        (entry,) = store.entries()
        with store.path(entry).open("r+b") as file:
            file.seek(entry.size // 2)
            file.write(b"\xff" * 64)
        again = ask("pull", "org/ready", "--tune-seconds", "0")
        assert again.returncode == 0 and "is damaged, or was changed: it is fetched again" in again.stderr
        assert store.damaged(store.entries()[0]) == []
        answer = ask("run", "org/ready", DEMO_PROMPT, "-n", "6", "-temp", "0")
        assert (answer.returncode, answer.stdout.strip()) == (0, "Mary is in the garden."), answer.stderr
        near = ask("run", "redy", "Who?")
        assert near.returncode == 2 and "no model of this name; did you mean ready?" in near.stderr
        # Nobody, root neither, makes a folder there.
        nowhere = ask("pull", "org/ready", TRIT_HOME="/proc/trit")
        assert nowhere.returncode == 2 and nowhere.stderr.count("\n") == 1
        assert "/proc/trit/store: no models can be kept here" in nowhere.stderr


def test_a_full_disk(trit: Trit, tmp_path: Path, engine_bin: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a tmpfs here")
    try:
        with HubServer() as hub:
            hub.repos["org/ready"] = Repo({"ready-i2_s.gguf": gguf_path(BUNDLED_MODEL).read_bytes()})
            variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": ""}
            done = trit("pull", "org/ready", packages=True, **variables)
        assert done.returncode == 2 and "of disk" in done.stderr and "Traceback" not in done.stderr
        assert not list(home.glob("store/manifests/*"))
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
