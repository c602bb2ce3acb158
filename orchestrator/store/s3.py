"""Keep a store in an S3 bucket, of Amazon or of any server with the same interface.

The store relies on PUT, GET, HEAD, LIST, DELETE and multipart uploads only. Each process opens its
own client: a store that is pickled, or carried over a fork, opens another.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from boto3 import Session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from orchestrator.store.base import Entry, NotFound, StoreError, checked_key
from orchestrator.store.retries import DEFAULT_RETRIES, Retries

TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20)
Result = TypeVar("Result")
CONNECTIONS = 16

# Errors of an answer that breaks off. The last is urllib3's: botocore lets it through when the body
# of an error response breaks off.
BROKEN = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    HTTPError,
)
ABSENT = {"404", "NoSuchKey", "NotFound"}
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
REFUSED = {
    "400",
    "401",
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}


@dataclass(frozen=True)
class S3Store:
    """Objects of `bucket` whose names begin with `prefix/`."""

    bucket: str
    prefix: str
    retries: Retries = field(default=DEFAULT_RETRIES, compare=False, repr=False)
    # By process id.
    _clients: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _opening: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bucket, self.prefix, self.retries)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        return self._read(key, {})

    def read_range(self, key: str, first: int, count: int) -> bytes:
        return self._read(key, {"Range": f"bytes={first}-{first + count - 1}"})

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        # Some servers ignore the condition of the request below.
        if only_if_absent and self.exists(key):
            return False
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        try:
            with self._explained("write", key):
                self._client().put_object(
                    Bucket=self.bucket, Key=self._name(key), Body=data, **condition
                )
        except _TakenError:
            return False
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
        return iter(sorted(entries))

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
                self._clients[process] = Session().client("s3", config=self._config())
            return self._clients[process]

    def _config(self) -> Config:
        # Most servers other than Amazon's do not accept a bucket as a part of the host name.
        custom = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return Config(
            retries={"mode": "standard", "max_attempts": self.retries.s3_attempts},
            connect_timeout=self.retries.s3_connect_seconds,
            read_timeout=self.retries.s3_read_seconds,
            max_pool_connections=CONNECTIONS,
            s3={"addressing_style": "path"} if custom else None,
        )

    def _repeat(self, request: Callable[[], Result]) -> Result:
        """Return the result of a request, which is sent again when its answer breaks off."""
        for attempt in range(self.retries.s3_broken_answers):
            try:
                return request()
            except BROKEN:
                time.sleep(self.retries.s3_broken_pause_seconds * 2**attempt)
        return request()

    @contextlib.contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn boto3's errors into the store's, with the server's own words in brackets."""
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, HTTPError) as error:
            code = _code(error)
            if code in ABSENT:
                raise NotFound(key, self.uri) from error
            if code in TAKEN:
                raise _TakenError(key) from error
            if code in REFUSED:
                # The next request reads the credentials again, because they may have expired.
                self._clients.pop(os.getpid(), None)
            advice = _advice(error, code, self.bucket)
            raise StoreError(
                f"cannot {action} {key!r} in the store {self.uri}: {advice}"
            ) from error


class _TakenError(Exception):
    """Another process wrote the object first."""


def _code(error: Exception) -> str:
    """Return the server's error code from the chain of errors, or "" if no server answered."""
    while not isinstance(error, ClientError):
        if not isinstance(error.__context__, Exception):
            return ""
        error = error.__context__
    return str(error.response.get("Error", {}).get("Code", ""))


def _advice(error: Exception, code: str, bucket: str) -> str:
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}; create it, or correct the store's URI"
    if code in REFUSED:
        return (
            f"the server refused it ({error}); check AWS_ACCESS_KEY_ID or AWS_PROFILE, "
            "whether its credentials have expired, and the bucket's policy"
        )
    if isinstance(error, NoCredentialsError):
        return (
            "no credentials were found; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, EndpointConnectionError):
        return f"the server does not answer ({error}); check AWS_ENDPOINT_URL and the network"
    return f"{error}"
