"""Stops servers by SIGTERM at random moments while callers are served and wait.

python -m tests.promises.stops 50
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.promises.callers import Answer, Crowd, counts, crowd, pitch_of
from tests.promises.figures import Figures, arguments
from tests.promises.hearing_server import hearing_server
from tests.promises.processes import descendants
from tests.running_server import RunningServer

SECONDS_PER_WINDOW = 0.1
NUM_CALLERS = 24
LONGEST_LIFE = 2.0
# Seconds, in turn: all work in hand fits into the one, and not into the other.
GRACES = (10, 1)
REASONS = {"200", "503", "refused", "cut off"}


def main(num_stops: int, figures: Figures) -> None:
    ends = [stopped(GRACES[number % len(GRACES)]) for number in range(num_stops)]
    answers = [answer for end in ends for answer in end.answers]
    late = [answer for end in ends for answer in end.never_taken]
    figures.note(f"{num_stops} stops of servers with {NUM_CALLERS} callers: {counts(answers)}")
    figures.equal("told anything but 200 or 503", sum(a.told not in REASONS for a in answers), 0)
    figures.equal("taken in, and cut off", sum(end.num_lost for end in ends), 0)
    figures.equal("503 without Retry-After", sum(a.has_no_retry_after for a in answers), 0)
    in_time = [a for end in ends if end.grace == max(GRACES) for a in end.answers]
    figures.equal("503 though the grace was long enough", counts(in_time).get("503", 0), 0)
    waited = max((answer.seconds for answer in late), default=0.0)
    figures.within(f"{len(late)} came too late: waited for that", waited, 1)
    figures.equal("exit statuses other than 0", sum(end.status != 0 for end in ends), 0)
    figures.equal("processes left behind", sum(len(end.left_behind) for end in ends), 0)
    figures.within("ended after the grace", max(end.seconds - end.grace for end in ends), 2)
    figures.end()


@dataclass(frozen=True)
class End:
    """How a server ended: after how many seconds, and what its callers had been told by then."""

    grace: int
    status: int
    seconds: float
    answers: list[Answer]
    left_behind: list[int]
    log: str

    @property
    def num_lost(self) -> int:
        """Requests that the server had begun, and whose caller got no answer."""
        return sum(answer.request_id in self.log for answer in self._unanswered)

    @property
    def never_taken(self) -> list[Answer]:
        """Those it had not begun."""
        return [answer for answer in self._unanswered if answer.request_id not in self.log]

    @property
    def _unanswered(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.told in ("refused", "cut off")]


def stopped(grace: int) -> End:
    """The end of a server that is stopped by SIGTERM at a random moment under load."""
    with (
        tempfile.TemporaryDirectory() as name,
        hearing_server(
            Path(name), SECONDS_PER_WINDOW, supervise=True, grace_seconds=grace
        ) as server,
    ):
        processes = descendants(server.process_id)
        answers, status, seconds = asyncio.run(stop(server))
        left = [process for process in processes if Path(f"/proc/{process}").exists()]
        return End(grace, status, seconds, answers, left, server.log)


async def stop(server: RunningServer) -> tuple[list[Answer], int, float]:
    """What callers were told, the exit status, and the seconds from the signal to the end."""
    callers = await crowd(server)
    callers.answers.clear()
    asking = [
        asyncio.ensure_future(ask_until_refused(callers, number)) for number in range(NUM_CALLERS)
    ]
    await asyncio.sleep(random.uniform(0, LONGEST_LIFE))  # noqa: S311 - no secret
    began = time.monotonic()
    status = await asyncio.to_thread(server.stop)
    seconds = time.monotonic() - began
    await asyncio.gather(*asking)
    return callers.answers, status, seconds


async def ask_until_refused(callers: Crowd, number: int) -> None:
    """One request after another, until one is not served."""
    async with callers.client() as client:
        while (await callers.ask(client, pitch_of(number))).told == "200":
            pass


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
