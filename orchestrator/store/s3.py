"""A store in an S3 bucket, of Amazon or of any server that speaks its language.

Only PUT, GET, HEAD, LIST, DELETE and multipart uploads are relied on. A client is opened by the process that first needs one
and never travels: a store that is pickled, or carried over a fork, opens another.
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

TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20)
Result = TypeVar("Result")
ATTEMPTS = 8  # at a request that the server refuses or does not answer; boto3 waits longer and longer between them
READ_SECONDS = 60  # without a byte, after which a request is made again
BREAKS = 4  # of an answer in its midst, after which it is an error; boto3 leaves these to us
# The last is urllib3's, which botocore lets through where the body of a refusal breaks off.
BROKEN = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    HTTPError,
)
ABSENT = {"404", "NoSuchKey", "NotFound"}
REFUSED = {
    *(
        "400",
        "401",
        "403",
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestExpired",
    ),
    *("SignatureDoesNotMatch", "TokenRefreshRequired"),
}


@dataclass(frozen=True)
class S3Store:
    """Objects of `bucket` whose names begin with `prefix/`."""

    bucket: str
    prefix: str
    _clients: dict[int, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # by process id
    _opening: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return S3Store, (self.bucket, self.prefix)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        return self._read(key, {})

    def read_range(self, key: str, first: int, count: int) -> bytes:
        return self._read(key, {"Range": f"bytes={first}-{first + count - 1}"})

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        if only_if_absent and self.exists(key):  # for the servers that ignore the condition below
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
            items = _repeated(fetch)
        return iter(
            sorted(
                Entry(item["Key"].removeprefix(root), item["Size"], item["LastModified"])
                for item in items
            )
        )

    def upload(self, path: Path, key: str) -> None:
        with self._explained("write", key):
            self._client().upload_file(str(path), self.bucket, self._name(key), Config=TRANSFER)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)

        def fetch() -> None:  # boto3 writes to another name in the same folder and renames
            self._client().download_file(self.bucket, self._name(key), str(path), Config=TRANSFER)

        with self._explained("read", key):
            _repeated(fetch)

    def delete(self, prefix: str) -> None:
        keys = self.list(prefix) if prefix.endswith("/") else [checked_key(prefix)]
        for key in keys:  # one by one: some servers do without the bulk request
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
            return _repeated(fetch)

    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _name(self, key: str) -> str:
        return self._root() + checked_key(key)

    def _client(self) -> Any:
        process = os.getpid()
        with self._opening:
            if process not in self._clients:
                # A bucket cannot be a host name of most servers other than Amazon's.
                custom = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
                options = {"s3": {"addressing_style": "path"}} if custom else {}
                retries = {"mode": "standard", "max_attempts": ATTEMPTS}
                times = {"connect_timeout": 5, "read_timeout": READ_SECONDS}
                config = Config(retries=retries, max_pool_connections=16, **times, **options)
                self._clients[process] = Session().client("s3", config=config)
            return self._clients[process]

    @contextlib.contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn boto3's errors into the store's: one sentence, with the server's own words in brackets."""
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error, HTTPError) as error:
            code = _code(error)
            if code in ABSENT:
                raise NotFound(key, self.uri) from error
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                raise _TakenError(key) from error
            if code in REFUSED:
                self._clients.pop(
                    os.getpid(), None
                )  # the next request reads the credentials anew: they may have expired
            raise StoreError(
                f"cannot {action} {key!r} in the store {self.uri}: {_advice(error, code, self.bucket)}"
            ) from error


def _repeated(request: Callable[[], Result]) -> Result:
    """The result of a request, made again when its answer breaks off."""
    for attempt in range(BREAKS):
        try:
            return request()
        except BROKEN:
            time.sleep(0.2 * 2**attempt)
    return request()


class _TakenError(Exception):
    """Someone else wrote the object first."""


def _code(error: Exception) -> str:
    """The server's error code, wherever boto3 hid it; empty when no server answered."""
    while not isinstance(error, ClientError):
        if not isinstance(error.__context__, Exception):
            return ""
        error = error.__context__
    return str(error.response.get("Error", {}).get("Code", ""))


def _advice(error: Exception, code: str, bucket: str) -> str:
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}; create it, or correct the store's URI"
    if code in REFUSED:
        advice = "check AWS_ACCESS_KEY_ID or AWS_PROFILE, whether its credentials have expired, and the bucket's policy"
        return f"the server refused it ({error}); {advice}"
    if isinstance(error, NoCredentialsError):
        return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, EndpointConnectionError):
        return f"the server does not answer ({error}); check AWS_ENDPOINT_URL and the network"
    return f"{error}"
