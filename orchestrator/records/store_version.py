"""Check that this version of Stepchain can read a store, and mark the stores that it writes.

One object at the root of a store names the version of its layout. Stores that were written before
this object existed lack it. They are of version 1 and stay readable and writable.
"""

from importlib import metadata

from pydantic import ValidationError

from orchestrator.records import layout
from orchestrator.store.base import NotFound, Store, StoreError, check_writable
from orchestrator.store.canonical import canonical_json
from orchestrator.store.open import open_store
from training.config import Document

# The versions that this code reads and writes. A change of the layout, or of a record's meaning,
# raises NEWEST; OLDEST follows when the code for older stores is dropped.
OLDEST = 1
NEWEST = 1


class StoreVersion(Document):
    """The version of a store's layout, and the Stepchain that first wrote to it."""

    version: int
    written_by: str  # version of Stepchain, for people


def open_checked_store(uri: str) -> Store:
    """Open the store of a URI.

    Raise StoreError unless it answers within seconds and this Stepchain handles its version.
    """
    store = open_store(uri)
    store.check_answers()
    check_version(store)
    return store


def check_there(store: Store) -> None:
    """Raise StoreError if nobody has written to the store, as where its address is misspelt."""
    if store.exists(layout.STORE_VERSION):
        return
    # Stores that were written before there was a mark.
    for folder in (layout.DATASET_NAMES, layout.CHAINS, layout.STEPS):
        if next(store.list(folder), None) is not None:
            return
    raise StoreError(
        f"there is no store at {store.uri}: check --store and STEPCHAIN_STORE, or begin one by "
        "ingesting a dataset (python -m jobs.ingest)"
    )


def check_version(store: Store) -> None:
    """Raise StoreError unless this Stepchain handles the store's version. Reads one object."""
    try:
        data = store.read(layout.STORE_VERSION)
    except NotFound:
        return
    try:
        found = StoreVersion.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(
            f"{layout.STORE_VERSION!r} in the store {store.uri} is damaged: restore it, or delete "
            "it if no Stepchain newer than this one has written to the store"
        ) from error
    if OLDEST <= found.version <= NEWEST:
        return
    is_newer = found.version > NEWEST
    advice = "install that version or a newer one" if is_newer else "use that version"
    raise StoreError(
        f"the store {store.uri} has version {found.version} of the layout, written by Stepchain "
        f"{found.written_by}, but this Stepchain handles versions {OLDEST} to {NEWEST}: {advice}, "
        "or another store"
    )


def prepare_store(store: Store) -> None:
    """Check that a store can be written to, and mark its version unless it has one.

    A job calls this before it writes anything. Raise StoreError if either fails.
    """
    check_writable(store)
    mark = StoreVersion(version=NEWEST, written_by=metadata.version("stepchain"))
    store.write(layout.STORE_VERSION, canonical_json(mark), only_if_absent=True)
