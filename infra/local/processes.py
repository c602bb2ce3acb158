"""Start processes that outlive this command, and stop them later with their children.

A `Ledger` is a file that names each process by its number and the moment it began, because the
system uses numbers again. Each process leads a session of its own. Its children share that session
or descend from it.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

SAME = 1.0  # seconds that two readings of a process's beginning may differ


class NotStarted(Exception):
    """A process ended or did not become ready in time. The message names its log."""


class Ledger:
    """The processes started from one folder: `processes.json`, and their output in `logs/`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "processes.json"
        self._logs = folder / "logs"

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        user: str | None = None,
    ) -> None:
        """Start a process with exactly this environment, and append its output to its log."""
        self._logs.mkdir(exist_ok=True)
        with self.log(name).open("ab") as output:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                # Another user may not be allowed to read the current folder.
                cwd="/" if user else None,
            )
        # The process outlives this one, so nothing here waits for it.
        started.returncode = 0
        began = psutil.Process(started.pid).create_time()
        self._write(self._read() | {name: {"pid": started.pid, "began": began}})

    def alive(self, name: str) -> psutil.Process | None:
        """Return the process, or None when it ended or its number belongs to another."""
        entry = self._read().get(name)
        if entry is None:
            return None
        try:
            process = psutil.Process(entry["pid"])
            same = abs(process.create_time() - entry["began"]) < SAME
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def names(self) -> list[str]:
        """Return the names of started processes that were not stopped, in order of starting."""
        return list(self._read())

    def stop(self, name: str, grace: float) -> None:
        """Terminate a process, wait `grace` seconds, then kill it and its children."""
        entry = self._read().get(name)
        if entry is None:
            return
        process = self.alive(name)
        # A number that now belongs to a stranger says nothing about the session.
        is_ours = process is not None or not psutil.pid_exists(entry["pid"])
        family = set(_session(entry["pid"])) if is_ours else set()
        if process:
            family |= {process, *process.children(recursive=True)}
            process.terminate()
            psutil.wait_procs([process], timeout=grace)
        _, left = psutil.wait_procs(list(family), timeout=2)
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=10)
        entries = self._read()
        entries.pop(name, None)
        self._write(entries)

    def wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()` is true.

        Raises:
            NotStarted: The process ended, or was not ready after `seconds`.
        """
        end = time.monotonic() + seconds
        while not ready():
            if self.alive(name) is None or time.monotonic() > end:
                output = self.log(name).read_text(errors="replace").splitlines()[-15:]
                heading = f"{name} did not start; the end of {self.log(name)}:"
                raise NotStarted("\n".join([heading, *output]))
            time.sleep(0.2)

    def log(self, name: str) -> Path:
        """Return the path of a process's output."""
        return self._logs / f"{name}.log"

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self, entries: dict) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(entries, indent=1))
        temporary.replace(self._file)


def _session(leader: int) -> list[psutil.Process]:
    """Return the processes of the session that this process began.

    The system does not use the number again while one of them lives.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return found
