"""Linux's own walls around a process: namespaces, a file system of its own, no rights, few system calls.

What bubblewrap does, done here through ctypes, because bubblewrap is a program that few machines have, and because it
starts a new interpreter for every call, where a fork inside finished walls is enough.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

SCRATCH = "/scratch"
_PATHS_ONLY = 0o10000000  # O_PATH
_USER, _MOUNTS, _NETWORK = 0x10000000, 0x00020000, 0x40000000  # CLONE_NEW...
_PROCESSES, _IPC, _HOST, _CGROUPS = 0x20000000, 0x08000000, 0x04000000, 0x02000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT = 1, 2, 4, 8, 32  # MS_...
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_KEPT_FLAGS = {8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # ST_... of a mount that a remount may not drop: MS_...
_DETACH = 2  # MNT_DETACH
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION = 0x20080522
_DIE_WITH_PARENT, _SET_DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38  # PR_...
_FILTER = 2  # SECCOMP_MODE_FILTER

_libc = ctypes.CDLL(None, use_errno=True)


def enter(readable: Sequence[str]) -> None:
    """Move this process into namespaces whose only files are the folders `readable`. OSError where that is refused.

    There is no network interface, no /proc, /sys, /dev, /etc or home, and what is there cannot be written.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_USER | _MOUNTS | _NETWORK | _IPC | _HOST | _CGROUPS), "user namespaces are refused")
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _check(_libc.sethostname(b"sandbox", 7), "the host's name cannot be hidden")
    _mount("", "/", "", _RECURSIVE | _PRIVATE)
    # Opened before the tmpfs hides what may lie below /tmp.
    folders = [(path, os.open(path, _PATHS_ONLY)) for path in readable]
    _mount("tmpfs", "/tmp", "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,mode=755")
    os.chdir("/tmp")
    for path, folder in folders:
        _show(f"/proc/self/fd/{folder}", "/tmp" + path)
        os.close(folder)
    Path("/tmp" + SCRATCH).mkdir()
    Path("/tmp/old").mkdir()
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"old"), "the root cannot be changed")
    os.chdir("/")
    _check(_libc.umount2(b"/old", _DETACH), "the old root cannot be taken away")
    Path("/old").rmdir()
    _mount("", "/", "", _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)


def _show(source: str, target: str) -> None:
    """Bind a folder, read-only, and hide the packages of others in it."""
    Path(target).mkdir(parents=True, exist_ok=True)
    _mount(source, target, "", _BIND)
    flags = os.statvfs(target).f_flag
    kept = sum(mount for stat, mount in _KEPT_FLAGS.items() if flags & stat)
    _mount("", target, "", _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | kept)
    for name in ("site-packages", "dist-packages"):
        if Path(target, name).is_dir():
            _mount("tmpfs", f"{target}/{name}", "tmpfs", _READ_ONLY, "size=4k,mode=755")


def new_process_table() -> None:
    """Children of this process will see no other process than themselves."""
    _check(_libc.unshare(_PROCESSES), "process namespaces are refused")


def fresh_scratch(megabytes: int, files: int) -> None:
    """An empty folder in memory that this process alone sees, and that is gone with it."""
    _check(_libc.unshare(_MOUNTS), "mount namespaces are refused")
    limits = f"size={megabytes}m,nr_inodes={files},mode=700"
    _mount("tmpfs", SCRATCH, "tmpfs", _NO_SUID | _NO_DEVICES | _NO_EXEC, limits)
    os.chdir(SCRATCH)


def die_with_parent() -> None:
    """Where a parent is killed, so is this process."""
    _libc.prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)


def drop_rights(program: bytes | None) -> None:
    """No capability, none to be had again, and from here on only the system calls that `program` lets through."""
    _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    _check(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs is refused")
    header, nothing = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _check(_libc.capset(header, nothing), "capabilities cannot be dropped")
    if program is None:
        raise OSError("this architecture has no seccomp filter here")
    text = ctypes.create_string_buffer(program, len(program))
    address = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    _check(_libc.prctl(_SECCOMP, _FILTER, address, 0, 0), "seccomp is refused")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(done, f"mounting {target} is refused")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
