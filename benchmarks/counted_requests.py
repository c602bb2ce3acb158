"""Count the requests that a process sends to its store, and make each of them slow on purpose."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

from orchestrator.store.folder import FolderStore

REQUESTS = ("read", "read_range", "download", "exists", "list", "entries", "write", "upload")


@contextmanager
def counted(
    kind: type = FolderStore, *, far: bool = False, pause: float = 0
) -> Iterator[Counter[str]]:
    """Count the requests to every store of one class, by name, while the context is entered.

    Args:
        kind: The class.
        far: A folder is taken for a server: nobody sees its files.
        pause: Seconds that each request takes longer, as to a server.

    Yields:
        How often each request was sent. What one request asks for inside is not counted again.
    """
    requests: Counter[str] = Counter()
    lock = threading.Lock()
    inside = threading.local()

    def counting(name: str, request: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(request)
        def called(*arguments: Any, **options: Any) -> Any:
            if getattr(inside, "now", False):
                return request(*arguments, **options)
            with lock:
                requests[name] += 1
            time.sleep(pause)
            inside.now = True
            try:
                found = request(*arguments, **options)
                # A folder is looked at while its entries are read.
                return iter(list(found)) if name in ("list", "entries") else found
            finally:
                inside.now = False

        return called

    with ExitStack() as patches:
        for name in (*REQUESTS, "delete"):
            patches.enter_context(
                mock.patch.object(kind, name, counting(name, getattr(kind, name)))
            )
        if far:
            patches.enter_context(mock.patch.object(kind, "local_path", return_value=None))
        yield requests
