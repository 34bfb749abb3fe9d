# SPDX-License-Identifier: MIT
"""Take the steps of deploy/Containerfile in changed roots, and try the server that comes of it.

    debootstrap --variant=minbase bookworm /tmp/base
    python -m tests.deploy.chroot --base /tmp/base --work /tmp/image

Needs root, the network, and a wheel in dist/. What the base image is named in the file is taken to be the base's copy.
The last image runs as its own user, in a network of its own, with everything read-only but /tmp and the volume.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.support.containerfile import Stage, stages
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import DEMO_PROMPT, ROOT

FILE = ROOT / "deploy" / "Containerfile"
KEY = "chroot-key"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How programs inside reach the network, as on the host.
_HOST_FILES = {
    "/etc/resolv.conf": "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt": "/run/host-certificates.crt",
}
_START_S, _STOP_S = 120, 15


class Image:
    """A folder that is a root, and the settings that go with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"PATH": _PATH, "HOME": "/"}
        self.folder = "/"
        self.user = "0:0"

    def shell(self, command: str) -> None:
        """One RUN."""
        for outside, inside in _HOST_FILES.items():
            place = self.root / inside.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(outside, place)
        words = ["/bin/sh", "-c", command]
        env = {"PIP_CERT": "/run/host-certificates.crt", "DEBIAN_FRONTEND": "noninteractive", **self.env}
        namespaces = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={self.root / 'proc'}"]
        subprocess.run([*namespaces, *self.inside(words, env)], check=True)

    def inside(self, words: list[str], env: dict[str, str] | None = None) -> list[str]:
        """The command that starts a program in this root."""
        variables = [f"{name}={value}" for name, value in (env or self.env).items()]
        start = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        chroot = ["chroot", f"--userspec={self.user}", str(self.root)]
        return [*chroot, "/usr/bin/env", "-i", *variables, "/bin/sh", "-c", start]


class Builder:
    """Makes stages, each once; those that an earlier run finished are kept."""

    def __init__(self, found: list[Stage], base: Path, work: Path) -> None:
        self.stages = {stage.name: stage for stage in found}
        self.base = base
        self.work = work

    def image(self, name: str) -> Image:
        """A stage, and before it what it starts from; the base for a name that is no stage's."""
        stage = self.stages.get(name)
        if stage is None:
            return Image(self.base)
        image = Image(self.work / (name or "image"))
        done = image.root.with_suffix(".done")
        before = self.image(stage.base)
        image.env, image.folder, image.user = dict(before.env), before.folder, before.user
        fresh = not done.exists()
        if fresh:
            shutil.rmtree(image.root, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", str(before.root), str(image.root)], check=True)
        for word, rest in stage.steps:
            self._step(image, word, rest, fresh)
        done.touch()
        return image

    def _step(self, image: Image, word: str, rest: str, fresh: bool) -> None:
        if word == "ENV":
            for name, value in (part.split("=", 1) for part in shlex.split(rest)):
                image.env[name] = re.sub(r"\$(\w+)", lambda match: image.env[match[1]], value)
        elif word == "WORKDIR":
            image.folder = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word in ("RUN", "COPY") and fresh:
            print(f"{image.root.name}: {word} {rest[:100]}", flush=True)
            if word == "RUN":
                image.shell(rest)
            else:
                self._copy(image, rest)

    def _copy(self, image: Image, rest: str) -> None:
        origin = ROOT
        if match := re.match(r"--from=(\S+) ", rest):
            origin, rest = self.image(match[1]).root, rest[match.end() :]
        *sources, target = rest.split()
        place = image.root / target.lstrip("/")
        for pattern in sources:
            found = sorted(origin.glob(pattern.lstrip("/")))
            if not found:
                raise SystemExit(f"COPY {rest}: there is no {pattern} in {origin}")
            for path in found:
                inner = place / path.name if target.endswith("/") else place
                inner.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", "-T", str(path), str(inner)], check=True)


def serve(image: Image, stage: Stage) -> None:
    """Start what the image starts, wait until it is well, ask it, stop it."""
    root = image.root
    models = root.with_name("models")
    shutil.rmtree(models, ignore_errors=True)
    models.mkdir()
    user, group = map(int, image.user.split(":"))
    os.chown(models, user, group)
    secret = root / "run" / "secrets" / "trit_api_key"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text(KEY)
    os.chown(secret, user, group)
    secret.chmod(0o400)
    words = [*json.loads(stage.last("ENTRYPOINT")), *json.loads(stage.last("CMD"))]
    place = shlex.quote(str(root))
    mounts = (
        f"mount --bind {place} {place} && mount -o remount,bind,ro {place} && mount -t proc proc {place}/proc && "
        f"mount -t tmpfs tmpfs {place}/tmp && mount --bind {shlex.quote(str(models))} {place}/models && "
        f"ip link set lo up && exec {shlex.join(image.inside(words))}"
    )
    begun = time.monotonic()
    server = subprocess.Popen(["unshare", "--mount", "--net", "sh", "-c", mounts])
    here = ["nsenter", "--target", str(server.pid), "--net", "--mount"]
    check = re.search(r"CMD (\[.*\])", stage.last("HEALTHCHECK"))
    assert check, "HEALTHCHECK has no CMD"
    try:
        while subprocess.run([*here, *image.inside(json.loads(check[1]))], stderr=subprocess.DEVNULL).returncode:
            if server.poll() is not None or time.monotonic() - begun > _START_S:
                raise SystemExit(f"the server does not get well (exit code {server.poll()})")
            time.sleep(0.5)
        print(f"well after {time.monotonic() - begun:.1f} s", flush=True)
        prompt = DEMO_PROMPT.replace("\\n", "\n")
        for key, expected in ((None, 401), ("another", 401), (KEY, 200)):
            code, answer = ask(here, prompt, key)
            print(f"key {key}: {code} {answer!r}", flush=True)
            assert code == expected, f"expected {expected}"
        assert "garden" in answer
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        assert re.search(rf"^Uid:\s+{user}\b", status, re.MULTILINE), "the server runs as another user"
    finally:
        server.terminate()
        begun = time.monotonic()
        code = server.wait(_STOP_S)
        print(f"ended after {time.monotonic() - begun:.1f} s with {code}", flush=True)
    owned = subprocess.run(
        ["find", str(root), "-xdev", "-user", str(user), "-newer", str(secret)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert owned.stdout == "", f"written outside of the volume: {owned.stdout}"


def ask(here: list[str], prompt: str, key: str | None) -> tuple[int, str]:
    """Status and text of a request from within the server's network."""
    code = (
        "import json, sys, urllib.error, urllib.request\n"
        "body = json.dumps({'prompt': sys.argv[1], 'max_tokens': 6, 'temperature': 0}).encode()\n"
        "headers = {'Content-Type': 'application/json'}\n"
        "headers |= {'Authorization': f'Bearer {sys.argv[2]}'} if sys.argv[2] else {}\n"
        "request = urllib.request.Request('http://127.0.0.1:8080/v1/completions', body, headers)\n"
        "try:\n    answer = urllib.request.urlopen(request, timeout=60)\n"
        "    print(answer.status, json.load(answer)['choices'][0]['text'])\n"
        "except urllib.error.HTTPError as error:\n    print(error.code, error.reason)\n"
    )
    net = [word for word in here if word != "--mount"]
    done = subprocess.run(
        [*net, sys.executable, "-c", code, prompt, key or ""], capture_output=True, text=True, check=True
    )
    number, _, text = done.stdout.partition(" ")
    return int(number), text.strip()


def main() -> int:
    """See the module's docstring."""
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=a_path, required=True, help="what debootstrap made")
    parser.add_argument("--work", type=a_path, required=True, help="folder for the stages; whole ones are kept")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("a root is changed by root alone: run this as root")
    args.work.mkdir(parents=True, exist_ok=True)
    found = stages(FILE.read_text(encoding="utf-8"))
    begun = time.monotonic()
    image = Builder(found, args.base.resolve(), args.work.resolve()).image("")
    size = subprocess.run(["du", "-sm", str(image.root)], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"built in {time.monotonic() - begun:.0f} s, {size} MB", flush=True)
    serve(image, found[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
