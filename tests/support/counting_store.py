"""Count the requests to a store."""

import threading
from collections import Counter
from typing import Any

from orchestrator.store.base import Store

REQUESTS = ("read", "read_range", "download", "exists", "list", "entries", "write", "upload")


class CountingStore:
    """A store that counts its requests by key. Like a server, it has no local files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.requests: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in REQUESTS:
            return found

        def counted(key: str = "", *arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.requests[key] += 1
            return found(key, *arguments, **options)

        return counted

    def local_path(self, key: str) -> None:
        """Return None, as a server does."""
