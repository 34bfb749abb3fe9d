# SPDX-License-Identifier: MIT
"""The files of deploy/: they agree with each other and with the server, and run nothing as root.

tests/deploy/chroot.py takes the Containerfile's steps; docs/deploy.md says which linters have read the files.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.containerfile import instructions, stages
from trit.base.errors import UserError
from trit.base.places import ROOT
from trit.cli import COMMANDS
from trit.run import serve
from trit.run.serving import access

DEPLOY = ROOT / "deploy"
FILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
IMAGE = stages(FILE)[-1]
UNIT = (DEPLOY / "trit.service").read_text(encoding="utf-8")
USER, PORT = 10001, 8080


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def kind(name: str) -> dict[str, Any]:
    return next(one for one in documents("kubernetes.yaml") if one["kind"] == name)


POD = kind("Deployment")["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
SERVICE = documents("compose.yaml")[0]["services"]["trit"]


def setting(name: str) -> list[str]:
    """Values of a setting of the unit, in their order."""
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT)


def started() -> dict[str, list[str]]:
    """The words behind ``trit serve`` of everything that starts a server."""
    program, command, *unit = shlex.split(setting("ExecStart")[0])
    assert program == "/opt/trit/bin/trit" and command == "serve" and unit.pop() == "$SERVE_FLAGS"
    words = {
        "Containerfile": json.loads(IMAGE.last("CMD")),
        "compose": SERVICE["command"],
        "kubernetes": CONTAINER["args"],
        "unit": ["serve", *unit],
    }
    assert all(line[0] == "serve" and line[0] in COMMANDS for line in words.values())
    return {name: line[1:] for name, line in words.items()}


@pytest.mark.parametrize("name", ["Containerfile", "compose", "kubernetes", "unit"])
def test_who_listens_beyond_the_machine_asks_for_a_key(name: str) -> None:
    """By the server's own rule: the same words without the key are refused."""
    words = started()[name]
    args, extra = serve.build_parser().parse(words)
    assert args.port == PORT
    access.check(args, extra)
    assert bool(access.outside(args, extra)) == access.has_key(args, extra) == (name != "unit")
    if name != "unit":
        args, extra = serve.build_parser().parse(words[: words.index("--api-key-file")])
        with pytest.raises(UserError, match="set a key with"):
            access.check(args, extra)


def test_nothing_runs_as_root() -> None:
    assert IMAGE.last("USER") == SERVICE["user"] == f"{USER}:{USER}"
    assert f"useradd --uid {USER}" in " ".join(rest for _, rest in IMAGE.steps)
    assert [word for word, _ in IMAGE.steps].index("USER") > max(
        place for place, (word, _) in enumerate(IMAGE.steps) if word in ("RUN", "COPY")
    ), "what is in the image belongs to root, and the server cannot change it"
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] and {pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]} == {USER}
    assert container["capabilities"] == {"drop": ["ALL"]} and SERVICE["cap_drop"] == ["ALL"]
    assert not container["allowPrivilegeEscalation"] and "no-new-privileges:true" in SERVICE["security_opt"]
    assert container["readOnlyRootFilesystem"] and SERVICE["read_only"]
    assert setting("DynamicUser") == ["yes"] and setting("CapabilityBoundingSet") == [""]


def test_places_and_ports_are_the_same_everywhere() -> None:
    assert IMAGE.last("VOLUME") == IMAGE.last("WORKDIR") == "/models"
    assert {"name": "models", "mountPath": "/models"} in CONTAINER["volumeMounts"]
    assert {one["name"] for one in CONTAINER["volumeMounts"]} == {one["name"] for one in POD["volumes"]}
    claim = next(one["persistentVolumeClaim"] for one in POD["volumes"] if one["name"] == "models")
    assert claim["claimName"] == kind("PersistentVolumeClaim")["metadata"]["name"]
    assert SERVICE["volumes"] == ["models:/models"]
    assert IMAGE.last("EXPOSE") == str(PORT) == str(CONTAINER["ports"][0]["containerPort"])
    assert SERVICE["ports"] == [f"127.0.0.1:{PORT}:{PORT}"], "a compose file opens nothing to the network"
    assert kind("Service")["spec"]["selector"].items() <= (
        kind("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert f"http://127.0.0.1:{PORT}/health" in IMAGE.last("HEALTHCHECK")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_keys_are_mounted_and_never_built_in() -> None:
    files = [value for line in started().values() for flag, value in pairwise(line) if "key" in flag]
    mounts = [one["mountPath"] for one in CONTAINER["volumeMounts"]]
    secrets = documents("compose.yaml")[0]["secrets"]
    assert files == ["/run/secrets/trit_api_key"] * 2 + [f"{mounts[-1]}/key"]
    assert SERVICE["secrets"] == list(secrets) == ["trit_api_key"] and "file" in secrets["trit_api_key"]
    assert not any(one["kind"] == "Secret" for one in documents("kubernetes.yaml"))
    for name in (".gitignore", ".dockerignore"):
        ignored = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert f"deploy/{secrets['trit_api_key']['file'].removeprefix('./')}" in [line.lstrip("/") for line in ignored]
    for word, rest in instructions(FILE):
        assert word not in ("ENV", "ARG") or not re.search("(?i)key|token|secret|password", rest)


@pytest.mark.parametrize(("asked", "source"), [({}, "take"), ({"WHEEL": "make"}, "make")])
def test_the_wheel_is_taken_or_made(asked: dict[str, str], source: str) -> None:
    found = {stage.name: stage for stage in stages(FILE, asked)}
    assert found["install"].base == source
    assert re.search(r" /wheels/?$", found[source].steps[-1][1]), "install finds it there"
    assert "--require-hashes -r /wheels/requirements.txt" in found["install"].last("RUN")


def test_what_is_copied_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [rest.split()[0] for word, rest in instructions(FILE) if word == "COPY" and not rest.startswith("--from")]
    assert {"requirements.txt", "."} < set(copied)
    assert not {path.split("/")[0] for path in copied} & set(ignored)
    # What a wheel is made of, beside what .gitignore leaves out.
    for needed in (
        "trit",
        "src",
        "include",
        "preset_kernels",
        "models",
        "3rdparty",
        "pyproject.toml",
        ".git",
        "README.md",
    ):
        assert needed not in ignored


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    # Here nothing is in /opt/trit.
    (tmp_path / "trit.service").write_text(UNIT.replace("/opt/trit/bin/trit", shutil.which("true") or "/bin/true"))
    done = subprocess.run([program, "verify", str(tmp_path / "trit.service")], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if "trit.service" in line]
    assert (done.returncode, told) == (0, [])
    rated = subprocess.run(
        [program, "security", "--offline=yes", str(tmp_path / "trit.service")], capture_output=True, text=True
    )
    level = re.search(r"exposure level for trit.service: ([\d.]+)", rated.stdout)
    assert level and float(level[1]) <= 1.5, rated.stdout


def test_instructions_over_several_lines() -> None:
    text = "ARG A=b\n# c\nFROM x AS y\nRUN one \\\n    # not run\n    && two\nFROM ${A}\nCOPY --from=y /a /b\n"
    assert instructions(text)[2] == ("RUN", "one && two")
    found = stages(text, {"A": "z"})
    assert [(stage.base, stage.name) for stage in found] == [("x", "y"), ("z", "")]
    assert stages(text)[1].base == "b" and found[1].last("COPY") == "--from=y /a /b"
