# SPDX-License-Identifier: MIT
"""Start deploy/trit.service under a systemd of its own, in the image that tests/deploy/chroot.py made.

    python -m tests.deploy.boot --image /tmp/image/image --work /tmp/boot

Needs root, the network and systemd-nspawn (Debian's systemd-container). The unit has to answer, confined, as a user of
its own; with the drop-in of docs/deploy.md to those alone who show the key; and to stay down after a mistake in flags.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deploy.chroot import KEY, Image
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import DEMO_PROMPT, ROOT

# nspawn's own filter of system calls lacks what the engine confines itself with.
_LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
_BOOT_S = 300
_PROBE = """[Unit]
After=trit.service
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /probe.py
ExecStopPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""
# Runs inside, and writes down what it saw.
_INSIDE = r"""
import json, pathlib, shutil, subprocess, time, urllib.error, urllib.request
def run(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout
def well():
    for _ in range(120):
        try:
            return urllib.request.urlopen("http://127.0.0.1:8080/health", timeout=4).status
        except OSError:
            time.sleep(0.5)
def ask(key=""):
    headers = {"Content-Type": "application/json", **({"Authorization": "Bearer " + key} if key else {})}
    body = json.dumps({"prompt": PROMPT, "max_tokens": 6, "temperature": 0}).encode()
    request = urllib.request.Request("http://127.0.0.1:8080/v1/completions", body, headers)
    try:
        return json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"].strip()
    except urllib.error.HTTPError as error:
        return error.code
run("systemctl", "start", "trit")
seen = {"health": well(), "answer": ask(), "journal": run("journalctl", "-u", "trit", "--no-pager")}
pid = run("systemctl", "show", "-p", "MainPID", "--value", "trit").strip()
seen["status"] = pathlib.Path("/proc", pid, "status").read_text()
folder = pathlib.Path("/etc/systemd/system/trit.service.d")
folder.mkdir()
(folder / "override.conf").write_text(DROP_IN)
run("systemctl", "daemon-reload")
run("systemctl", "restart", "trit")
seen |= {"health with a key": well(), "without": ask(), "another": ask("another"), "with": ask(KEY)}
run("systemctl", "stop", "trit")
seen["stopped"] = run("systemctl", "show", "-p", "Result", "--value", "trit").strip()
shutil.rmtree(folder)
pathlib.Path("/etc/trit/flags").write_text('SERVE_FLAGS="-m /nowhere.gguf"\n')
run("systemctl", "daemon-reload")
run("systemctl", "start", "trit")
time.sleep(8)
seen["mistake"] = run("systemctl", "show", "-p", "ExecMainStatus", "-p", "NRestarts", "trit").split()
pathlib.Path("/probe.json").write_text(json.dumps(seen))
"""


def drop_in() -> str:
    """What docs/deploy.md tells people to write for other machines."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    found = re.search(r"(?m)^    \[Service\]\n(?:    .*\n)+", text)
    assert found, "docs/deploy.md has no drop-in"
    return found[0].replace("    ", "")


def prepare(image: Path, root: Path) -> None:
    """Copy the image, and put systemd, the unit and the probe into the copy."""
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(image), str(root)], check=True)
    # The unit's user is made when it starts: the image's would be taken for it.
    Image(root).shell(
        "apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd-sysv && userdel trit"
    )
    (root / "etc" / "trit").mkdir()
    (root / "etc" / "trit" / "key").write_text(KEY)
    (root / "etc" / "trit" / "key").chmod(0o600)


def boot(root: Path) -> dict[str, Any]:
    """Start systemd there, and return what the probe saw."""
    units = root / "etc" / "systemd" / "system"
    shutil.copy(ROOT / "deploy" / "trit.service", units)
    (units / "probe.service").write_text(_PROBE)
    values = {"PROMPT": DEMO_PROMPT.replace("\\n", "\n"), "DROP_IN": drop_in(), "KEY": KEY}
    (root / "probe.py").write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()) + _INSIDE)
    subprocess.run(["chroot", str(root), "systemctl", "enable", "probe.service"], check=True)
    command = ["systemd-nspawn", "-D", str(root), "--boot", "--register=no", "--keep-unit", "--private-network"]
    command += ["--console=pipe", f"--system-call-filter={_LANDLOCK}"]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=_BOOT_S, check=True)
    seen: dict[str, Any] = json.loads((root / "probe.json").read_text(encoding="utf-8"))
    return seen


def main() -> int:
    """See the module's docstring."""
    parser = ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--image", type=a_path, required=True, help="the root that tests/deploy/chroot.py made")
    parser.add_argument("--work", type=a_path, required=True, help="folder for the copy that is started")
    args = parser.parse_args()
    prepare(args.image.resolve(), args.work.resolve())
    seen = boot(args.work.resolve())
    print(json.dumps({name: value for name, value in seen.items() if name not in ("journal", "status")}, indent=1))
    check(seen)
    return 0


def check(seen: dict[str, Any]) -> None:
    """Compare what the probe saw with what docs/deploy.md promises."""
    assert seen["health"] == seen["health with a key"] == 200
    assert "garden" in seen["answer"] and "garden" in seen["with"]
    assert seen["without"] == seen["another"] == 401
    assert "The engine is confined" in seen["journal"], seen["journal"]
    uid = re.search(r"^Uid:\s+(\d+)", seen["status"], re.MULTILINE)
    assert uid and int(uid[1]) >= 61184, "not a user made by systemd"  # the range of DynamicUser
    for line in (r"CapBnd:\s+0+", r"NoNewPrivs:\s+1", r"Seccomp:\s+2"):
        assert re.search(f"^{line}$", seen["status"], re.MULTILINE), line
    assert seen["stopped"] == "success"
    assert sorted(seen["mistake"]) == ["ExecMainStatus=2", "NRestarts=0"]


if __name__ == "__main__":
    sys.exit(main())
