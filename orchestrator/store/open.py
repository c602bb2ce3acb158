"""Open the store that a URI names."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.store.base import Store, StoreError
from orchestrator.store.folder import FolderStore
from orchestrator.store.passwords import without_passwords


def default_store() -> str:
    """Return the URI of the store when none is given: $STEPCHAIN_STORE unless it is empty."""
    return os.environ.get("STEPCHAIN_STORE") or "./stepchain-store"


def open_store(uri: str) -> Store:
    """Return the store that a URI names, without touching disk or network.

    S3 takes its credentials, profile, region and endpoint from the AWS_* variables and files that
    every AWS tool reads, never from the URI.

    Args:
        uri: A folder's path, `file:///folder` or `s3://bucket/prefix`.

    Raises:
        StoreError: The URI is of another form.
    """
    scheme, colon, rest = uri.partition(":")
    match scheme.lower() + colon:
        case "s3:":
            return _bucket(uri)
        case "file:":
            return FolderStore(_local_path(rest, uri).resolve())
    if "://" in uri or not uri:
        raise StoreError(
            f"{without_passwords(uri)!r} is not a store: give a folder, file:///folder or "
            "s3://bucket/prefix"
        )
    try:
        return FolderStore(Path(uri).expanduser().resolve())
    except RuntimeError as error:  # of expanduser
        raise StoreError(
            f"{uri!r} begins with the home of a user that this machine does not know: "
            "give the folder's whole path"
        ) from error


def _bucket(uri: str) -> Store:
    """Return the store that a URI of S3 names."""
    # boto3 takes a while to import, and folders do without it.
    from orchestrator.store.s3 import S3Store

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StoreError(
            f"{without_passwords(uri)!r} is not a store ({error}): give s3://bucket/prefix"
        ) from error
    if "@" in parts.netloc or parts.query:
        raise StoreError(
            "a store's URI is s3://bucket/prefix and holds no credentials: "
            "set AWS_ACCESS_KEY_ID or AWS_PROFILE"
        )
    if parts.fragment or uri.endswith("#"):
        raise StoreError(f"{uri!r} is no bucket and prefix: a prefix cannot hold #")
    if not parts.netloc:
        raise StoreError(f"{uri!r} names no bucket: a store's URI is s3://bucket/prefix")
    return S3Store(parts.netloc, parts.path.strip("/"))


def _local_path(rest: str, uri: str) -> Path:
    """Return the path that follows `file:` in a URI. It may hold # and ?."""
    host, path = "", rest
    if rest.startswith("//"):
        host, slash, below = rest[2:].partition("/")
        path = slash + below
    if host not in ("", "localhost") or not path.startswith("/"):
        raise StoreError(
            f"{uri!r} is not a store: file:/// and a folder's whole path name one of this machine"
        )
    return Path(unquote(path))
