"""Keep a store in an S3 bucket, of Amazon or of any server with the same interface.

The store relies on PUT, GET, HEAD, LIST, DELETE and multipart uploads only. Each process opens its
own client: a store that is pickled, or carried over a fork, opens another.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from boto3 import Session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from orchestrator.store.base import Entry, NotFound, StoreError, checked_key, is_litter
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from orchestrator.store.s3_check import problem_of_server
from orchestrator.store.s3_errors import (
    BROKEN,
    REFUSED,
    NoConditionError,
    TakenError,
    advice,
    endpoint,
    error_code,
    explained,
)

log = logging.getLogger(__name__)
TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20)
Result = TypeVar("Result")
CONNECTIONS = 16


@dataclass(frozen=True)
class S3Store:
    """Objects of `bucket` whose names begin with `prefix/`."""

    bucket: str
    prefix: str
    retries: Retries = field(default=DEFAULT_RETRIES, compare=False, repr=False)
    # By process id.
    _clients: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _opening: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    # Set when the server turned out to know no conditions.
    _unconditional: Any = field(
        default_factory=threading.Event, init=False, repr=False, compare=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bucket, self.prefix, self.retries)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        return self._read(key, {})

    def read_range(self, key: str, first: int, count: int) -> bytes:
        return self._read(key, {"Range": f"bytes={first}-{first + count - 1}"})

    def check_answers(self) -> None:
        patience = self.retries.first_answer_seconds
        client = self._new_client(self.retries.first_answer_attempts, patience)
        problem = problem_of_server(client, self.bucket, self._root(), 3 * patience)
        if problem:
            raise StoreError(f"cannot use the store {self.uri}: {problem}")

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if not only_if_absent:
            self._put(key, data)
            return True
        # Some servers ignore the condition of the request below.
        if self.exists(key):
            return False
        if self._unconditional.is_set():
            return self._put_and_look(key, data)
        try:
            self._put(key, data, IfNoneMatch="*")
        except TakenError:
            return False
        except NoConditionError as refusal:
            # If the condition is not the reason, this raises the same.
            written = self._put_and_look(key, data)
            self._unconditional.set()
            log.warning(
                "the server of %s knows no conditional writes (%s), so objects are written without "
                "their condition: two jobs that begin a step in the same second may both train "
                "it, until one sees that the other holds its lease; results stay right",
                self.uri,
                refusal.__cause__,
            )
            return written
        return True

    def exists(self, key: str) -> bool:
        try:
            with self._explained("look for", key):
                self._client().head_object(Bucket=self.bucket, Key=self._name(key))
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter([entry.key for entry in self.entries(prefix)])

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            checked_key(prefix.removesuffix("/"))
        root = self._root()

        def fetch() -> list[Any]:
            pages = (
                self._client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=root + prefix)
            )
            return [item for page in pages for item in page.get("Contents", [])]

        with self._explained("list", prefix):
            items = self._repeat(fetch)
        entries = [
            Entry(item["Key"].removeprefix(root), item["Size"], item["LastModified"])
            for item in items
        ]
        return iter(sorted(entry for entry in entries if not is_litter(entry.key)))

    def upload(self, path: Path, key: str) -> None:
        with self._explained("write", key):
            self._client().upload_file(str(path), self.bucket, self._name(key), Config=TRANSFER)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)

        # boto3 writes to another name in the same folder, and renames the file at the end.
        def fetch() -> None:
            self._client().download_file(self.bucket, self._name(key), str(path), Config=TRANSFER)

        with self._explained("read", key):
            self._repeat(fetch)

    def delete(self, prefix: str) -> None:
        keys = self.list(prefix) if prefix.endswith("/") else [checked_key(prefix)]
        # One by one, because some servers lack the bulk request.
        for key in keys:
            with self._explained("delete", key):
                self._client().delete_object(Bucket=self.bucket, Key=self._name(key))

    def local_path(self, key: str) -> Path | None:
        return None

    def _put(self, key: str, data: bytes, **condition: str) -> None:
        with self._explained("write", key):
            self._client().put_object(
                Bucket=self.bucket, Key=self._name(key), Body=data, **condition
            )

    def _put_and_look(self, key: str, data: bytes) -> bool:
        """Write an object without a condition; return whether no other write came after it."""
        self._put(key, data)
        try:
            return self.read(key) == data
        except NotFound:
            return False

    def _read(self, key: str, options: dict[str, str]) -> bytes:
        def fetch() -> bytes:
            return (
                self._client()
                .get_object(Bucket=self.bucket, Key=self._name(key), **options)["Body"]
                .read()
            )

        with self._explained("read", key):
            return self._repeat(fetch)

    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _name(self, key: str) -> str:
        return self._root() + checked_key(key)

    def _client(self) -> Any:
        process = os.getpid()
        with self._opening:
            if process not in self._clients:
                self._clients[process] = self._new_client(
                    self.retries.s3_attempts, self.retries.s3_read_seconds
                )
            return self._clients[process]

    def _new_client(self, attempts: int, read_seconds: float) -> Any:
        address = endpoint()
        # Over TLS no byte is damaged on the way, and several servers refuse boto3's own checksums
        # there, which come after the body. What we read back is checked by digests of ours.
        checksums: Any = (
            "when_supported" if (address or "").startswith("http:") else "when_required"
        )
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=self.retries.s3_connect_seconds,
            read_timeout=read_seconds,
            max_pool_connections=CONNECTIONS,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            # Most servers other than Amazon's do not accept a bucket as a part of the host name.
            s3={"addressing_style": "path"} if address else None,
        )
        try:
            return Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:  # of a profile, a setting or an address
            raise StoreError(
                f"cannot use the store {self.uri}: {advice(error, self.bucket)}"
            ) from error

    def _repeat(self, request: Callable[[], Result]) -> Result:
        """Return the result of a request, which is sent again when its answer breaks off."""
        # boto3 has asked a mute server often enough by then.
        patience = self.retries.s3_attempts * self.retries.s3_read_seconds
        end = time.monotonic() + patience
        for attempt in range(self.retries.s3_broken_answers):
            try:
                return request()
            except BROKEN:
                if time.monotonic() > end:
                    raise
                time.sleep(self.retries.s3_broken_pause_seconds * 2**attempt)
        return request()

    @contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn boto3's errors into the store's."""
        try:
            with explained(action, key, self.uri, self.bucket):
                yield
        except StoreError as error:
            if error.__cause__ is not None and error_code(error.__cause__) in REFUSED:
                # The next request reads the credentials again, because they may have expired.
                self._clients.pop(os.getpid(), None)
            raise
