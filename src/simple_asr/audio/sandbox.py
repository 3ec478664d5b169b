"""Shuts a process in for good: what it holds stays usable, and nothing else can be had any more.

Two walls of Linux, each enough by itself for most of it, both by plain system calls: seccomp leaves
some thirty harmless calls, and Landlock refuses every path and every address. Neither needs a
privilege, and neither can be taken back. What they do not hide is whether a path exists.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from dataclasses import dataclass

# prctl(2), PR_SET_NO_NEW_PRIVS: without it an unprivileged process may not shut itself in.
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, slots=True)
class _Machine:
    """A kind of processor: its column in _CALLS, and its name in linux/audit.h."""

    column: int
    audit_arch: int


_MACHINES = {
    "x86_64": _Machine(0, 0xC000_003E),
    "aarch64": _Machine(1, 0xC000_00B7),
}


def confine() -> dict[str, bool]:
    """Shuts this process in; which walls hold. To be called with one thread, imports all done."""
    set_no_new_privileges()
    # In this order: the first makes calls that the second refuses.
    return {"Landlock (no files, no addresses)": forbid_paths(), "seccomp": forbid_calls()}


def set_no_new_privileges() -> bool:
    """No program this process may ever run gains a right by it; True when that holds."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _machine() -> _Machine | None:
    """None where the numbers below are not known to be right: a 32-bit Python has others."""
    is_known = sys.platform == "linux" and sys.maxsize > 2**32
    return _MACHINES.get(platform.machine()) if is_known else None


def _call(number: int, *arguments: object) -> int:
    """A system call by its number; -1 when the kernel refuses it, or has none such."""
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(number), *arguments))


# Landlock, from Linux 5.13 -----------------------------------------------------------------------

# landlock(7); the numbers are the same on every machine.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_VERSION = 1  # The flag that asks for the version of the interface.

# Rights that can be handled, by the version of the interface which brought them.
_FILE_RIGHTS = {1: 0x1FFF, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NET_RIGHTS = {4: 0b11}  # Binding and connecting TCP.
_SCOPES = {6: 0b11}  # Abstract Unix sockets, and signals, of processes outside.


def forbid_paths() -> bool:
    """Refuses to open, make, remove or run any file, and to use TCP; True when that holds.

    A ruleset without a rule: what is handled is refused. Descriptors that are open, or come by a
    socket, keep working.
    """
    version = landlock_version()
    if version < 1:
        return False
    attributes = struct.pack(
        "=QQQ", *(_up_to(version, rights) for rights in (_FILE_RIGHTS, _NET_RIGHTS, _SCOPES))
    )
    # An older kernel takes a longer structure, as long as what it does not know is 0.
    size = ctypes.c_size_t(len(attributes))
    ruleset = _call(_LANDLOCK_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        return _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def landlock_version() -> int:
    """Of the kernel's interface; less than 1 where it has none."""
    if _machine() is None:
        return 0
    return _call(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)


def _up_to(version: int, rights: dict[int, int]) -> int:
    return sum(bits for since, bits in rights.items() if since <= version)


# seccomp, from Linux 3.17 ------------------------------------------------------------------------

# linux/seccomp.h and linux/filter.h.
_SECCOMP = (317, 277)
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_RET_ALLOW, _RET_KILL_PROCESS, _RET_EPERM = 0x7FFF_0000, 0x8000_0000, 0x0005_0001
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
# Offsets in struct seccomp_data; of an argument, its lower half.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 32

_PROT_EXEC = 4

# What remains, with the call's number on x86-64 and on ARM64: descriptors that are open, memory,
# the clock, the end. No call opens, connects, starts or signals anything.
_CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    # How the C library asks for the size of an open file.
    "newfstatat": (262, 79),
    # The socket to the server: words to it, descriptors from it.
    "sendto": (44, 206), "sendmsg": (46, 211), "recvfrom": (45, 207), "recvmsg": (47, 212),
    "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233),
    "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "getpid": (39, 172), "gettid": (186, 178), "getrandom": (318, 278),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "gettimeofday": (96, 169),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# Memory may be had, and none that can be run.
_MEMORY_CALLS = {"mmap": (9, 222), "mprotect": (10, 226)}
# With which abort() ends its own process.
_SIGNAL_CALL = (234, 131)


def forbid_calls() -> bool:
    """Refuses (EPERM) every system call that decoding does not need; True when that holds."""
    machine = _machine()
    if machine is None:
        return False
    code = b"".join(_filter(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, eight bytes each, and where they are.
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    number = _SECCOMP[machine.column]
    return _call(number, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, program) == 0


def _filter(machine: _Machine, process_id: int) -> list[bytes]:
    """The program the kernel runs before each call: a row of questions, each with its answer."""
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_IF_EQUAL, machine.audit_arch, 1, 0),
        _instruction(_RETURN, _RET_KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    for numbers in _CALLS.values():
        program += [
            _instruction(_IF_EQUAL, numbers[machine.column], 0, 1),
            _instruction(_RETURN, _RET_ALLOW),
        ]
    for numbers in _MEMORY_CALLS.values():
        may_run = _instruction(_IF_ANY_BIT, _PROT_EXEC, 1, 0)
        program += _with_argument(numbers[machine.column], _THIRD_ARGUMENT, may_run)
    is_other = _instruction(_IF_EQUAL, process_id, 0, 1)
    program += _with_argument(_SIGNAL_CALL[machine.column], _FIRST_ARGUMENT, is_other)
    return [*program, _instruction(_RETURN, _RET_EPERM)]


def _with_argument(number: int, argument: int, question: bytes) -> list[bytes]:
    """Allows call `number` unless `question` of its argument skips one instruction."""
    return [
        _instruction(_IF_EQUAL, number, 0, 4),
        _instruction(_LOAD, argument),
        question,
        _instruction(_RETURN, _RET_ALLOW),
        _instruction(_RETURN, _RET_EPERM),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter; the two numbers are how many instructions are skipped."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
