"""Kills one of two servers that share a PostgreSQL database, again and again, while both do jobs.

python -m tests.promises.two_servers 50
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import sqlalchemy as sa

from tests.promises.callers import tone
from tests.promises.figures import Figures, arguments
from tests.promises.hearing_server import hearing_server
from tests.promises.processes import descendants
from tests.running_server import RunningServer
from tests.service.postgresql import running
from tests.support import WAIT

SECONDS_PER_WINDOW = 0.3
LEASE_SECONDS = 1
NAMES = ("one", "two")
# Hertz and windows of 30 s of each recording: no two have the same text.
RECORDINGS = ((400.0, 1), (800.0, 2), (1600.0, 3))
RATE = 8000
PCM = {"Content-Type": f"audio/pcm;rate={RATE}"}
JOBS_A_SECOND = 2.0

# Written by the database itself, whatever a server believes to have done.
WITNESS = """
CREATE TABLE seen (at timestamptz DEFAULT clock_timestamp(), job text, what text, server text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.lease IS NOT NULL AND NEW.lease IS DISTINCT FROM OLD.lease THEN
    INSERT INTO seen (job, what, server)
    VALUES (NEW.id, 'begun', current_setting('application_name'));
  END IF;
  IF NEW.state <> OLD.state AND NEW.state IN ('done', 'failed', 'cancelled') THEN
    INSERT INTO seen (job, what, server)
    VALUES (NEW.id, NEW.state, current_setting('application_name'));
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER see AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION see();
"""
AT_WORK = """
SELECT count(*) FROM jobs WHERE state = 'running' AND :server =
  (SELECT server FROM seen WHERE job = jobs.id AND what = 'begun' ORDER BY at DESC LIMIT 1)
"""
NOT_ENDED = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"


def main(num_kills: int, figures: Figures) -> None:
    with (
        running() as postgresql,
        postgresql.fresh() as url,
        tempfile.TemporaryDirectory() as name,
        watched(url) as database,
        Pair(Path(name), url) as pair,
    ):
        run_sql(database, WITNESS)
        texts = [pair.transcribe(number) for number in range(len(RECORDINGS))]
        assert len(set(texts)) == len(RECORDINGS), texts
        sender = Sender(pair)
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(sender.send_all)
            try:
                for number in range(num_kills):
                    until(lambda n=number: shares_of(database) > n)  # type: ignore[misc]  # bound to this round
                    victim = random.choice(NAMES)  # noqa: S311 - no secret
                    until(lambda v=victim: numbers(database, AT_WORK, server=v)[0] > 0)  # type: ignore[misc]  # bound to this round
                    time.sleep(random.uniform(0, 0.5))  # noqa: S311 - no secret
                    pair.kill(victim)
            finally:
                sender.is_over.set()
            sending.result()
        until(lambda: numbers(database, NOT_ENDED) == [0])
        results = [pair.result(number, job_id) for number, job_id in sender.taken.items()]
        rows = rows_of(database, "SELECT job, what, server FROM seen")
        [num_jobs] = numbers(database, "SELECT count(*) FROM jobs")
        left = pair.left_behind()
    hold(figures, num_kills, sender, num_jobs, rows)
    expected = [texts[number % len(texts)] for number in sender.taken]
    wrong = sum(told != right for told, right in zip(results, expected, strict=True))
    figures.equal("jobs with another result than /transcribe gives", wrong, 0)
    figures.equal("processes left behind by the kills", len(left), 0)
    figures.end()


def hold(figures: Figures, num_kills: int, sender: Sender, num_jobs: int, rows: list[Any]) -> None:
    """What the database has seen against what callers were told."""
    ends = Counter(row.job for row in rows if row.what == "done")
    begun = Counter(row.job for row in rows if row.what == "begun")
    shares = Counter(row.server for row in rows if row.what == "done")
    taken_over = sum(number > 1 for number in begun.values())
    figures.note(
        f"{num_kills} kills, {len(sender.taken)} jobs acknowledged ({sender.num_broken} "
        f"connections refused or broken); done by {dict(shares)}, {taken_over} begun more than once"
    )
    figures.equal("acknowledged jobs not done", len(set(sender.taken.values()) - set(ends)), 0)
    figures.equal("jobs done more than once", sum(n > 1 for n in ends.values()), 0)
    figures.equal("jobs for a request", num_jobs / len(sender.taken), 1)
    figures.at_least("jobs done by the one with fewer", min(shares.values()), num_kills)


class Pair:
    """Two servers with one database and one folder of jobs; a killed one is started anew."""

    def __init__(self, home: Path, url: str) -> None:
        self._home, self._url = home, url
        self._lives = count()
        self._stacks = {name: ExitStack() for name in NAMES}
        self._servers: dict[str, RunningServer] = {}
        self._descendants: list[int] = []

    def __enter__(self) -> Pair:
        with ThreadPoolExecutor() as threads:  # At once: they also make the tables at once.
            list(threads.map(self._start, NAMES))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stack in self._stacks.values():
            stack.close()

    def kill(self, name: str) -> None:
        """SIGKILL, and another server in its place."""
        process_id = self._servers[name].process_id
        self._descendants += descendants(process_id)
        self._servers[name].kill()
        self._stacks[name].close()
        self._start(name)

    def left_behind(self) -> list[int]:
        """Child processes of servers that were killed."""
        return [process for process in self._descendants if Path(f"/proc/{process}").exists()]

    def client(self, number: int) -> httpx.Client:
        """Of the one or the other, in turn."""
        return self._servers[NAMES[number % len(NAMES)]].client()

    def transcribe(self, number: int) -> str:
        """The text of a recording that somebody waits for."""
        with self.client(number) as client:
            return client.post("/transcribe?format=text", headers=PCM, content=sound(number)).text

    def result(self, number: int, job_id: str) -> str:
        """The text of a job, told by the server that did not take it in."""
        with self.client(number + 1) as client:
            return client.get(f"/jobs/{job_id}/result").text

    def _start(self, name: str) -> None:
        home = self._home / f"{name}-{next(self._lives)}"
        home.mkdir()
        server = hearing_server(
            home,
            SECONDS_PER_WINDOW,
            jobs_dir=self._home / "jobs",
            database_url=f"{self._url}?application_name={name}",
            job_lease_seconds=LEASE_SECONDS,
        )
        self._servers[name] = self._stacks[name].enter_context(server)


@dataclass
class Sender:
    """Sends one job after another to the servers in turn; what they have acknowledged."""

    pair: Pair
    taken: dict[int, str] = field(default_factory=dict)
    num_broken: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)

    def send_all(self) -> None:
        for number in count():
            if self.is_over.wait(1 / JOBS_A_SECOND):
                return
            self.taken[number] = self._sent(number)

    def _sent(self, number: int) -> str:
        """The id of the job, by whichever server is alive."""
        answers = (self._answer(number, place) for place in count(number))
        answer = next(answer for answer in answers if answer is not None)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def _answer(self, number: int, place: int) -> httpx.Response | None:
        headers = {**PCM, "Idempotency-Key": f"request-{number}"}
        try:
            with self.pair.client(place) as client:
                return client.post("/jobs?format=text", headers=headers, content=sound(number))
        except httpx.TransportError:  # Killed, perhaps after it had taken the job in.
            self.num_broken += 1
            return None


def sound(number: int) -> bytes:
    pitch, num_windows = RECORDINGS[number % len(RECORDINGS)]
    return tone(pitch, 30.0 * num_windows, RATE)


# The database ------------------------------------------------------------------------------------


@contextmanager
def watched(url: str) -> Iterator[sa.Engine]:
    address = sa.make_url(url).set(drivername="postgresql+pg8000")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def run_sql(database: sa.Engine, script: str) -> None:
    with database.connect() as connection:
        connection.exec_driver_sql(script)


def rows_of(database: sa.Engine, query: str, **values: str) -> list[Any]:
    with database.connect() as connection:
        return list(connection.execute(sa.text(query), values))


def numbers(database: sa.Engine, query: str, **values: str) -> list[int]:
    return [row[0] for row in rows_of(database, query, **values)]


def shares_of(database: sa.Engine) -> int:
    """Jobs done by the server that has done fewer."""
    done = rows_of(database, "SELECT server, count(*) FROM seen WHERE what = 'done' GROUP BY 1")
    return min(number for _, number in done) if len(done) == len(NAMES) else 0


def until(holds: Callable[[], bool]) -> None:
    """Waits for what the database alone can tell. Fails after WAIT seconds."""
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline, f"not so after {WAIT} s"
        time.sleep(0.02)


if __name__ == "__main__":
    amount, held = arguments()
    main(int(amount), held)
