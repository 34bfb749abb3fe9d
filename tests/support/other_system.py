# SPDX-License-Identifier: MIT
"""Python as it is on macOS or Windows: the names that are absent there are taken away, and so are /proc and /sys.

``python -m tests.support.other_system SYSTEM WORDS`` is the command ``trit WORDS`` there. With ``--imports`` it imports
every module that needs no torch, and prints the help of each command among the words. Packages and the standard
library were imported before and keep what they have. Programs are those of this machine; on Windows their names end in
.exe, which is taken away again.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import io
import os
import pkgutil
import subprocess
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

# Of Linux alone.
_NEITHER = {
    "os": "O_DIRECT O_PATH O_TMPFILE SCHED_BATCH copy_file_range eventfd fdatasync getrandom getxattr listxattr "
    "memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr sched_getaffinity sched_getparam "
    "sched_getscheduler sched_setaffinity sched_setscheduler setxattr splice unshare",
    "select": "epoll",
    "signal": "SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo",
    "socket": "AF_NETLINK AF_PACKET AF_VSOCK SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED",
    "time": "CLOCK_BOOTTIME clock_settime",
}
_NOT_ON_WINDOWS = {
    "os": "O_ACCMODE O_ASYNC O_CLOEXEC O_DIRECTORY O_NDELAY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC PRIO_PROCESS "
    "RTLD_GLOBAL RTLD_LAZY RTLD_LOCAL RTLD_NOW WCONTINUED WCOREDUMP WEXITSTATUS WIFEXITED WIFSIGNALED WIFSTOPPED "
    "WNOHANG WSTOPSIG WTERMSIG WUNTRACED chown chroot confstr confstr_names ctermid environb fchdir fchmod fchown "
    "fork forkpty fpathconf fstatvfs getegid geteuid getgid getgrouplist getgroups getloadavg getpgid getpgrp "
    "getpriority getresgid getresuid getsid getuid initgroups killpg lchown lockf major makedev minor mkfifo mknod "
    "nice openpty pathconf posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork "
    "sched_get_priority_max sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority setregid "
    "setreuid setsid setuid statvfs sync sysconf sysconf_names tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 "
    "waitid writev",
    "select": "poll",
    "signal": "ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP "
    "SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGWINCH SIG_BLOCK alarm pause pthread_kill pthread_sigmask "
    "setitimer siginterrupt sigpending sigwait",
    "socket": "AF_UNIX CMSG_LEN recv_fds send_fds sethostname socketpair",
    "time": "CLOCK_MONOTONIC clock_getres clock_gettime pthread_getcpuclockid tzset",
}
_MODULES_NOT_ON_WINDOWS = ("curses", "fcntl", "grp", "nis", "pty", "pwd", "readline", "resource", "syslog", "termios")
SYSTEMS = {"macos": "darwin", "windows": "win32"}
_HEAVY = ("trit.train", "trit.verify")


def _import_ours() -> list[str]:
    """Import the modules of the package; their names."""
    import trit

    names = [found.name for found in pkgutil.walk_packages(trit.__path__, "trit.")]
    light = [name for name in names if not name.startswith(_HEAVY) and not name.endswith("__main__")]
    for name in light:
        importlib.import_module(name)
    return light


def _without(name: str, absent: str) -> ModuleType:
    """A module that lacks these names."""
    real, copy = importlib.import_module(name), ModuleType(name)
    gone = set(absent.split())
    copy.__dict__.update({key: value for key, value in vars(real).items() if key not in gone})
    return copy


def _hide_folders_of_linux() -> None:
    """Nothing is in /proc and /sys; and a program is found by its name on Windows, too."""
    look, opened = os.stat, io.open

    def hidden(path: Any) -> bool:
        return not isinstance(path, int) and os.fsdecode(path).startswith(("/proc/", "/sys/"))

    def stat(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if hidden(path):
            raise FileNotFoundError(2, "there is no such file on this system", path)
        return look(path if isinstance(path, int) else os.fsdecode(path).removesuffix(".exe"), *rest, **more)

    def open_(path: Any, *rest: Any, **more: Any) -> Any:
        if hidden(path):
            raise FileNotFoundError(2, "there is no such file on this system", path)
        return opened(path, *rest, **more)

    os.stat = stat
    io.open = open_  # type: ignore[assignment]


class _WindowsPopen(subprocess.Popen):  # type: ignore[type-arg]
    """Refuses what Windows does not do, as it does there."""

    def __init__(self, command: Any, **options: Any) -> None:
        if options.get("preexec_fn") is not None:
            raise ValueError("preexec_fn is not supported on Windows platforms")
        assert not options.get("pass_fds"), "pass_fds not supported on Windows."
        super().__init__([str(command[0]).removesuffix(".exe"), *command[1:]], **options)


class _Kernel32:
    """The functions of Windows' library that we call, on a machine of two cores, 8 GB and 3 of them free."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.GetLogicalProcessorInformationEx = _two_cores

    @staticmethod
    def GlobalMemoryStatusEx(status: Any) -> int:
        numbers = (ctypes.c_uint64 * 8).from_address(ctypes.addressof(status._obj))
        if numbers[0] & 0xFFFFFFFF != 64:
            return 0  # as Windows answers a structure of another size
        numbers[1], numbers[2] = 8_000_000_000, 3_000_000_000
        return 1

    @staticmethod
    def OpenProcess(_: int, __: bool, pid: int) -> int:
        return pid

    @staticmethod
    def GetProcessTimes(pid: int, created: Any, ended: Any, *_: Any) -> int:
        created._obj.value = pid
        return 1

    @staticmethod
    def CloseHandle(_: int) -> int:
        return 1


def _two_cores(_: int, records: Any, size: Any) -> int:
    wanted, size._obj.value = size._obj.value, 96
    if records is None or wanted < 96:
        return 0
    # Each: which kind of record, its size; flags, class, and 38 bytes of which we read none.
    records.raw = (bytes(4) + (48).to_bytes(4, "little") + bytes([0, 1]) + bytes(38)) * 2
    return 1


def become(system: str) -> None:
    """Take away what a system of SYSTEMS lacks, and forget our modules: they are imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "trit"]:
        del sys.modules[name]
    _hide_folders_of_linux()
    # Once for all modules: functions of other modules that are copied here go on using what they were made with.
    for name, absent in _NEITHER.items():
        more = _NOT_ON_WINDOWS[name] if system == "windows" else ""
        sys.modules[name] = _without(name, f"{absent} {more}")
    sys.platform = SYSTEMS[system]
    platform = importlib.import_module("platform")
    platform.system = lambda: {"macos": "Darwin", "windows": "Windows"}[system]
    if system == "windows":
        sys.modules["os"].name = "nt"  # type: ignore[attr-defined]
        for name in _MODULES_NOT_ON_WINDOWS:
            sys.modules[name] = None  # type: ignore[assignment]
        ctypes.WinDLL = _Kernel32  # type: ignore[attr-defined, unused-ignore]
        subprocess.Popen = _WindowsPopen  # type: ignore[misc]


def main() -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    # With ours come the packages that they need.
    commands = importlib.import_module("trit.cli").COMMANDS
    if args.imports:
        _import_ours()
    else:
        importlib.import_module(commands[args.words[0]][0].partition(":")[0])
    become(args.system)
    cli = importlib.import_module("trit.cli")
    if not args.imports:
        sys.argv = ["trit", *args.words]
        return int(cli.main(args.words))
    print(*_import_ours())
    for name in args.words:
        with suppress(SystemExit):
            cli.main([name, "--help"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
