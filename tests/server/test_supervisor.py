"""A server that dies is there again, and whoever looks after it goes when it is told to."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from simple_asr.server.supervisor import (
    LONGEST_PAUSE,
    MAX_DEATHS_IN_A_ROW,
    STEADY_SECONDS,
    Restarts,
)
from tests.support import WAIT

# When to start again ----------------------------------------------------------------------------


def test_a_server_that_worked_for_long_is_started_again_at_once() -> None:
    restarts = Restarts()

    pauses = [restarts.after_death(STEADY_SECONDS, was_ready=True) for _ in range(100)]

    assert pauses == [0.0] * 100
    assert restarts.num_deaths == 100


@pytest.mark.parametrize("was_ready", [True, False])
def test_one_that_keeps_dying_is_waited_for_longer_and_longer_and_then_given_up(
    was_ready: bool,
) -> None:
    restarts = Restarts()

    pauses = [restarts.after_death(1.0, was_ready=was_ready) for _ in range(MAX_DEATHS_IN_A_ROW)]

    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE, 30, None]


def test_a_server_that_was_never_ready_did_not_work_however_long_it_lived() -> None:
    restarts = Restarts()

    assert [restarts.after_death(1e6, was_ready=False) for _ in range(2)] == [1, 2]


def test_one_that_worked_ends_a_row_of_deaths() -> None:
    restarts = Restarts()
    restarts.after_death(1.0, was_ready=False)
    restarts.after_death(1.0, was_ready=False)

    assert restarts.after_death(STEADY_SECONDS, was_ready=True) == 0
    assert restarts.after_death(1.0, was_ready=False) == 1


# The parent -------------------------------------------------------------------------------------

PROGRAM = """
import logging, os, signal, sys, time
from simple_asr.server import supervisor
from simple_asr.server.listener import listen

def stand_in(listener, seconds):
    print("stand-in", flush=True)
    listener.accept()[0].sendall(b"come again")

logging.basicConfig(level="INFO")
exec(sys.argv[1])
server = supervisor.keep_serving(listen("127.0.0.1", 0), stand_in)
print(f"server {server.num_deaths} {os.getpid()} {server.listener.getsockname()[1]}", flush=True)
exec(sys.argv[2])
"""


class Parent:
    """A supervisor whose servers run a test's lines, and what all of them print."""

    def __init__(self, server: str, setup: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, setup, server],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def next(self) -> list[str]:
        """The words of the next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def end(self) -> tuple[int, str]:
        """How it ends, and the log, once it has."""
        _, log = self.process.communicate(timeout=WAIT)
        return self.process.returncode, log


Start = Callable[..., Parent]


@pytest.fixture
def start() -> Iterator[Start]:
    if sys.platform != "linux":
        pytest.skip("servers are supervised on Linux")
    started: list[Parent] = []

    def make(server: str, setup: str = "") -> Parent:
        started.append(Parent(server, setup))
        return started[-1]

    yield make
    for parent in started:
        parent.process.kill()
        parent.process.communicate()


def test_a_server_that_is_killed_is_followed_by_another_on_the_same_socket(start: Start) -> None:
    parent = start("signal.pause()", setup="supervisor.LONGEST_PAUSE = 0")
    _, deaths, process_id, port = parent.next()

    os.kill(int(process_id), signal.SIGKILL)
    _, deaths_after, process_id_after, port_after = parent.next()

    assert (deaths, deaths_after) == ("0", "1")
    assert process_id_after != process_id
    assert port_after == port


def test_a_stop_is_passed_on_and_its_outcome_too(start: Start) -> None:
    parent = start("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(); signal.pause()")
    parent.next()
    parent.next()

    parent.process.send_signal(signal.SIGTERM)

    assert parent.end()[0] == 7


def test_who_comes_when_a_stopping_server_listens_no_more_is_refused(start: Start) -> None:
    parent = start(
        "signal.signal(signal.SIGTERM, lambda *_: (server.listener.close(), print(flush=True)))\n"
        "print(flush=True)\n"
        "while True: signal.pause()"
    )
    port = int(parent.next()[3])
    parent.next()

    parent.process.send_signal(signal.SIGTERM)
    parent.next()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=WAIT)


def test_a_hangup_is_passed_on_and_ends_nothing(start: Start) -> None:
    parent = start(
        "signal.signal(signal.SIGHUP, lambda *_: print('heard', flush=True)); print(flush=True)\n"
        "while True: signal.pause()"
    )
    parent.next()
    parent.next()

    for _ in range(2):
        parent.process.send_signal(signal.SIGHUP)
        assert parent.next() == ["heard"]


def test_a_hangup_before_the_server_takes_its_signals_is_no_death(start: Start) -> None:
    parent = start(
        "os.kill(os.getpid(), signal.SIGHUP); sys.exit(78)",
        setup="supervisor.MAX_DEATHS_IN_A_ROW = 1",
    )

    assert parent.end() == (78, "")


def test_what_is_set_up_wrong_is_not_tried_again(start: Start) -> None:
    parent = start("sys.exit(78)")

    assert parent.end()[0] == 78


def test_a_server_that_only_ever_dies_is_given_up_with_a_sentence(start: Start) -> None:
    parent = start(
        "sys.exit(3)", setup="supervisor.LONGEST_PAUSE = 0; supervisor.MAX_DEATHS_IN_A_ROW = 3"
    )

    status, log = parent.end()

    assert status == 1
    assert log.count("started again in") == 2
    assert "ended 3 times in a row without having worked, the last time with status 3" in log


def test_a_server_whose_loop_stands_still_is_killed(start: Start) -> None:
    parent = start(
        "server.beat(is_ready=True)\nwhile True: time.sleep(1)",
        setup="supervisor.SILENCE_SECONDS = 0.2; supervisor.STEADY_SECONDS = 0",
    )

    assert [parent.next()[1] for _ in range(3)] == ["0", "1", "2"]


def test_a_server_is_not_killed_while_it_beats(start: Start) -> None:
    parent = start(
        "for _ in range(60): server.beat(is_ready=True); time.sleep(0.05)\nsys.exit(78)",
        setup="supervisor.SILENCE_SECONDS = 2",
    )

    assert parent.end()[0] == 78


def test_while_no_server_is_there_another_answers(start: Start) -> None:
    parent = start("sys.exit(3)")
    *_, port = parent.next()
    assert parent.next() == ["stand-in"]

    with socket.create_connection(("127.0.0.1", int(port)), timeout=WAIT) as caller:
        assert caller.recv(100) == b"come again"


def test_a_stop_while_no_server_is_there_ends_all(start: Start) -> None:
    parent = start("sys.exit(3)")
    parent.next()
    parent.next()

    parent.process.send_signal(signal.SIGTERM)

    assert parent.end()[0] == 0


def test_without_its_parent_no_server_stays(start: Start) -> None:
    parent = start("signal.pause()")
    process_id = int(parent.next()[2])
    server = os.pidfd_open(process_id)

    parent.process.kill()

    assert select.select([server], [], [], WAIT)[0]
    os.close(server)
