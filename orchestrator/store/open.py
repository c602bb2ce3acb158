"""Open the store that a URI names."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.store.base import Store, StoreError
from orchestrator.store.folder import FolderStore


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
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        # boto3 takes a while to import, and folders do without it.
        from orchestrator.store.s3 import S3Store

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
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)).resolve())
    if "://" in uri or not uri:
        raise StoreError(
            f"{uri!r} is not a store: give a folder, file:///folder or s3://bucket/prefix"
        )
    return FolderStore(Path(uri).expanduser().resolve())
