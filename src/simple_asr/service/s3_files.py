"""The media of jobs in a store that speaks S3, for servers that share no folder.

It alone knows s3fs, of the extra `s3`, and is imported only where a setting asks for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import ClientError as ConnectionFailed
from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from simple_asr.errors import ConfigurationError, StorageFull, Unavailable
from simple_asr.service.job_files import ABANDONED_AFTER_SECONDS, SUFFIX, make_folder, spooled

logger = logging.getLogger(__name__)

SCHEME = "s3://"
# The least that S3 takes, and at most 10,000 of them; an upload holds two in memory.
PART_BYTES = 5 * 1024 * 1024
NUM_PARTS_AT_ONCE = 2
NUM_TRIES = 2
# All tries of a call: the libraries below wait for ever for a store that stops reading. Two parts
# may go with one call.
CALL_SECONDS = 20.0
# What s3fs lets through: its own translations, and what it does not translate.
FAILS = (OSError, BotoCoreError, ConnectionFailed, asyncio.TimeoutError)
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError)
# Ceph's word for it; MinIO and others say it by their status.
FULL = "QuotaExceeded"


@dataclass(frozen=True, slots=True)
class S3Place:
    """`url` is `s3://bucket`, or a folder there. What is None is read as AWS's own tools read it:
    from the environment, their files, or the machine's role.
    """

    url: str
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


class _Store(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs, none of whose calls lasts for ever."""

    async def _call_s3(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.wait_for(super()._call_s3(*arguments, **options), CALL_SECONDS)

    call_s3 = sync_wrapper(_call_s3)


class S3Files:
    """JobFiles in a bucket. `folder` is for what is being sent or fetched."""

    def __init__(self, place: S3Place, folder: Path) -> None:
        """Raises ConfigurationError where the store refuses us; one that is silent may come yet."""
        make_folder(folder)
        self._folder = folder
        self._url = place.url
        self._root = place.url.removeprefix(SCHEME).rstrip("/")
        self._store = _Store(
            key=place.access_key,
            secret=place.secret_key,
            token=place.session_token,
            endpoint_url=place.endpoint,
            config_kwargs={"retries": {"total_max_attempts": NUM_TRIES, "mode": "standard"}},
            # What another server has sent or removed is to be seen at once.
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._store.retries = NUM_TRIES
        self._check()

    def adopt(self, media: Path, job_id: str) -> None:
        with self._told_apart():
            self._store.put_file(
                str(media),
                self._key(job_id),
                chunksize=PART_BYTES,
                max_concurrency=NUM_PARTS_AT_ONCE,
            )

    def keep(self, content: Iterable[bytes], job_id: str) -> None:
        with spooled(content, self._folder) as media:
            self.adopt(media, job_id)

    def has(self, job_id: str) -> bool:
        with self._told_apart():
            return bool(self._store.exists(self._key(job_id)))

    def path(self, job_id: str) -> Path | None:  # noqa: ARG002  (none of them lies here)
        return None

    def fetch(self, job_id: str, target: Path) -> None:
        with self._told_apart():
            self._store.get_file(self._key(job_id), str(target), max_concurrency=1)

    def remove(self, job_ids: Iterable[str]) -> None:
        """What cannot be removed now is left to a later sweep."""
        try:
            for job_id in job_ids:
                self._store.rm_file(self._key(job_id))
        except FAILS as error:
            logger.warning("Files of jobs stay in %s for the moment: %s", self._url, error)

    def sweep(self, without_work: Callable[[list[str]], set[str]]) -> None:
        newest = time.time() - ABANDONED_AFTER_SECONDS
        with self._told_apart():
            found: dict[str, Any] = self._store.find(self._root, detail=True)
        old = [
            name.rpartition("/")[2].removesuffix(SUFFIX)
            for name, about in found.items()
            if name.endswith(SUFFIX) and about["LastModified"].timestamp() < newest
        ]
        self.remove(without_work(old))

    def _key(self, job_id: str) -> str:
        return f"{self._root}/{job_id}{SUFFIX}"

    def _check(self) -> None:
        bucket, _, prefix = self._root.partition("/")
        try:
            self._store.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except FAILS as error:
            if isinstance(error, NO_CREDENTIALS) or 400 <= _answer(error).status < 500:
                raise ConfigurationError(
                    f"The store of the files of jobs, {self._url}, refuses this server: {error}. "
                    "Check JOB_FILES_URL, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, and that the bucket is there."
                ) from None
            logger.warning("The store of the files of jobs, %s, fails: %s", self._url, error)

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Turns the store's errors into StorageFull and Unavailable."""
        try:
            yield
        except FileNotFoundError:
            raise
        except FAILS as error:
            logger.error("The store of the files of jobs, %s, failed: %s", self._url, error)
            answer = _answer(error)
            if answer.status == HTTPStatus.INSUFFICIENT_STORAGE or answer.code == FULL:
                raise StorageFull(
                    "The server's store of files is full, so the job could not be kept. Send it "
                    "again later, or tell the operator."
                ) from error
            raise Unavailable(
                "The server's store of files cannot be used at the moment; its log says why. Try "
                "again later."
            ) from error


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the store said, where it said anything."""

    status: int = 0
    code: str = ""


def _answer(error: BaseException) -> _Answer:
    """s3fs's errors carry botocore's, which have the response."""
    response = getattr(error.__cause__ or error, "response", None)
    if not isinstance(response, dict):
        return _Answer()
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _Answer(status, response.get("Error", {}).get("Code", ""))
