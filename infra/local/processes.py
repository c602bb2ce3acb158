"""Processes that outlive the command that started them, and are stopped by another, with all they started and nothing else.

A `Ledger` is a file that names each by its number and the moment it began, because numbers are used again. Each is the leader
of a session of its own, which its children share or descend from.
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
    """A process ended or fell silent before it was ready; the message says what, and where its output is."""


class Ledger:
    """What was started from one folder: `processes.json` in it, and each one's output in `logs/`."""

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
        """Start a process with that environment and no other, its output appended to its log."""
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
                cwd="/" if user else None,  # where it may look, unlike perhaps here
            )
        started.returncode = 0  # it is to outlive this process: none here will wait for it
        self._write(
            self._read()
            | {name: {"pid": started.pid, "began": psutil.Process(started.pid).create_time()}}
        )

    def alive(self, name: str) -> psutil.Process | None:
        """The process, if it is still that one and runs."""
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
        """Of all that was started and not stopped, in the order of starting."""
        return list(self._read())

    def stop(self, name: str, patience: float) -> None:
        """Ask it to end, wait, then end it and whatever is left of what it started."""
        entry = self._read().get(name)
        if entry is None:
            return
        process = self.alive(name)
        family = (
            set(_session(entry["pid"])) if process or not psutil.pid_exists(entry["pid"]) else set()
        )
        if process:
            family |= {process, *process.children(recursive=True)}
            process.terminate()
            psutil.wait_procs([process], timeout=patience)
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
        """Until `ready()` is true. Raises NotStarted."""
        end = time.monotonic() + seconds
        while not ready():
            if self.alive(name) is None or time.monotonic() > end:
                said = self.log(name).read_text(errors="replace").splitlines()[-15:]
                raise NotStarted(
                    "\n".join([f"{name} did not start; the end of {self.log(name)}:", *said])
                )
            time.sleep(0.2)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self, entries: dict) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(entries, indent=1))
        temporary.replace(self._file)


def _session(leader: int) -> list[psutil.Process]:
    """What shares the session that this process began. The number is nobody else's while one of them lives."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return found
