"""Keeps a server alive: a parent holds the socket, and forks the process that serves ever anew.

The parent knows no model, no thread and no request, so that there is nothing in it to break. The
socket is never closed between two servers: who connects meanwhile waits, or is told to come again.
Why a process and not a thread: docs/decisions/0014.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# After so much silence a server that has spoken is killed: its event loop, which nothing may block,
# is blocked for good.
SILENCE_SECONDS = 30.0
# A server that worked for so long did start well: its end is the first of a row.
STEADY_SECONDS = 10.0
MAX_DEATHS_IN_A_ROW = 10
LONGEST_PAUSE = 30.0
# Of sysexits.h: what is set up wrong stays wrong, and what failed for now may be tried again.
EXIT_CONFIGURATION = 78
EXIT_AGAIN = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_READY, _ALIVE = b"r", b"."

StandIn = Callable[[socket.socket, float], None]
"""Answers on a socket for so many seconds."""

Handlers = Mapping[signal.Signals, Any]
"""What `signal.signal` gave back."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a serving process is given: the socket, how many died before it, whom to tell it lives.

    `heart` is the writing end of a pipe. The parent reads the other, whose end is this process's.
    """

    listener: socket.socket
    num_deaths: int
    heart: int

    def beat(self, *, is_ready: bool) -> None:
        """This process works; and so does its model, if `is_ready`."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self.heart, _READY if is_ready else _ALIVE)


class Restarts:
    """When to start a server again. Pure arithmetic."""

    def __init__(self) -> None:
        self.num_deaths = 0
        self._num_in_a_row = 0

    def after_death(self, lived: float, *, was_ready: bool) -> float | None:
        """Seconds to wait after one that lived so long; None: this will not get better."""
        self.num_deaths += 1
        has_worked = was_ready and lived >= STEADY_SECONDS
        self._num_in_a_row = 0 if has_worked else self._num_in_a_row + 1
        if self._num_in_a_row >= MAX_DEATHS_IN_A_ROW:
            return None
        return min(LONGEST_PAUSE, 2.0 ** (self._num_in_a_row - 1)) if self._num_in_a_row else 0.0


def keep_serving(listener: socket.socket, stand_in: StandIn) -> Supervised:
    """Returns in each serving process. The caller's own process stays here until the end of all.

    While none serves, another process runs `stand_in(listener, seconds)`, which answers for it.
    Signals are passed on; the process ends as the server does once one has asked it to, or once
    it is set up wrong. Raises SystemExit. Call it before any thread is there.
    """
    return _Supervisor(listener, stand_in).run()


class _Supervisor:
    """Owned by the main thread. `_child` is the process at work, 0 where there is none."""

    def __init__(self, listener: socket.socket, stand_in: StandIn) -> None:
        self._listener = listener
        self._stand_in = stand_in
        self._child = 0
        self._is_stopping = False
        self._was_ready = False

    def run(self) -> Supervised:
        restarts = Restarts()
        theirs = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        while True:
            began = time.monotonic()
            reading, writing = os.pipe()
            if self._fork(theirs):
                os.close(reading)
                os.set_blocking(writing, False)
                return Supervised(self._listener, restarts.num_deaths, writing)
            os.close(writing)
            self._listen_to(reading)
            status = self._end_of_child()
            lived = time.monotonic() - began
            if self._is_stopping or status == EXIT_CONFIGURATION:
                # It may have been stopped before it knew what to do about that.
                raise SystemExit(0 if status == 128 + signal.SIGTERM else status)
            pause = restarts.after_death(lived, was_ready=self._was_ready)
            if pause is None:
                logger.critical(
                    "The server has ended %d times in a row without having worked, the last time "
                    "%s: it is not started again. The log above says why.",
                    MAX_DEATHS_IN_A_ROW,
                    _manner(status),
                )
                raise SystemExit(1)
            logger.error(
                "The server has ended %s after %.0f s: it is started again in %.0f s.",
                _manner(status),
                lived,
                pause,
            )
            self._wait(pause, theirs)

    def _fork(self, theirs: Handlers) -> bool:
        """Whether this is the new process, which has the signals of before to itself.

        All but SIGHUP, to which it is deaf until it takes it. Raises SystemExit once the end
        has been asked for.
        """
        # Between this look and the note of the child's number a signal would reach nobody.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if self._is_stopping:
            raise SystemExit(0)
        child = os.fork()
        if child == 0:
            _end_with_parent()
            # Not in the terminal's group: Ctrl-C reaches it through the parent, once.
            os.setpgid(0, 0)
            for number, handler in theirs.items():
                signal.signal(number, handler)
            # By default it would be death. What it asks to be read again is about to be read.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._child = child
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return child == 0

    def _pass_on(self, number: int, _: object) -> None:
        if number != signal.SIGHUP:
            self._is_stopping = True
            # The server has it still, and stops listening when it takes no more requests. Who
            # comes later is refused at once, where an open socket would have them wait in vain.
            self._listener.close()
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    def _listen_to(self, heart: int) -> None:
        """Until the child's end of the pipe is closed. A child that falls silent is killed."""
        self._was_ready = False
        is_heard = False
        while True:
            patience = SILENCE_SECONDS if is_heard and not self._is_stopping else None
            if not select.select([heart], [], [], patience)[0]:
                logger.critical("The server has not moved for %.0f s: killed.", SILENCE_SECONDS)
                os.kill(self._child, signal.SIGKILL)
                break
            told = os.read(heart, 4096)
            if not told:
                break
            is_heard = True
            self._was_ready = self._was_ready or _READY in told
        os.close(heart)

    def _end_of_child(self) -> int:
        """Its exit status, 128 and more for a signal. Others' orphans, which are ours, end too."""
        while True:
            process_id, status = os.wait()
            if process_id == self._child:
                self._child = 0
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _wait(self, seconds: float, theirs: Handlers) -> None:
        """While a process of its own answers, so that nothing is ever imported into this one."""
        if seconds:
            if self._fork(theirs):
                self._stand_in(self._listener, seconds)
                os._exit(0)
            self._end_of_child()


def _manner(status: int) -> str:
    if status > 128:
        with suppress(ValueError):
            return f"by {signal.Signals(status - 128).name}"
    return f"with status {status}"


def _end_with_parent() -> None:
    """By prctl(2), PR_SET_PDEATHSIG: without its parent nobody would stop it or start it again."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def is_supported() -> bool:
    """Elsewhere, forks and system libraries do not go together."""
    return sys.platform == "linux"


def end_now(status: int) -> NoReturn:
    """Without a word to threads that hang."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
