"""Measure what the commands that only read cost on a large store: time, requests, memory.

    python -m benchmarks.store_size [--chains 100 200 1000] [--s3] [--pause 0.02] [--json]

Each size is a made-up store (`benchmarks.made_up_store`), and each command runs in a process of its
own, as a person runs it. Requests are counted where commands ask the store. With `--s3` the same
objects are served by moto, an S3 server in memory, in a process of its own. With `--pause` each
request to the folder takes that much longer, which shows what waits for one request after another.

The command prints a row for each command and size. With `--json` the last line is one document.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.counted_requests import counted
from benchmarks.made_up_campaign import QUESTION
from orchestrator.store.open import open_store

ROOT = Path(__file__).parents[1]
BUCKET = "size"
CAMPAIGN = '''"""{question}"""

from benchmarks.made_up_campaign import made_up_campaign


def chains():
    return made_up_campaign({chains}).chains
'''
# The module whose main runs it, and its arguments. {} is a folder of its own.
COMMANDS = {
    "plan": ("jobs.campaign.cli", "plan", "{campaign}"),
    "status": ("jobs.campaign.cli", "status", "{campaign}"),
    "table": ("jobs.campaign.cli", "table", "{campaign}"),
    "report": ("jobs.report", "--campaign", "size", "--out", "{out}"),
    "prune": ("jobs.campaign.cli", "prune", "--grace-hours", "0"),
    "ls": ("jobs.ingest", "ls"),
    "sync": ("jobs.report", "--sync-mlflow", "--tracking-uri", "sqlite:///{out}/mlflow.db"),
    "sync again": ("jobs.report", "--sync-mlflow", "--tracking-uri", "sqlite:///{out}/mlflow.db"),
}


def measure(name: str, uri: str, scratch: Path, chains: int, pause: float) -> dict[str, Any]:
    """Run a command in a process of its own, and return its seconds, requests and megabytes."""
    campaign = scratch / "size.py"
    campaign.write_text(CAMPAIGN.format(question=QUESTION, chains=chains))
    out = scratch / "out"
    out.mkdir(exist_ok=True)
    words = [each.format(campaign=campaign, out=out) for each in COMMANDS[name]]
    command = [sys.executable, "-m", "benchmarks.store_size", "--inside", json.dumps(words)]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache")}
    answer = subprocess.run(
        [*command, "--store", uri, "--pause", str(pause)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(f"{name} on {uri} ended with {answer.returncode}")
    return {"command": name, **json.loads(answer.stdout.splitlines()[-1])}


def run_inside(words: Sequence[str], uri: str, pause: float) -> None:
    """Run a command in this process, and print one line of JSON."""
    module, *arguments = words
    kind = type(open_store(uri))
    main = import_module(module).main
    printed = StringIO()
    began, used = time.monotonic(), time.process_time()
    with counted(kind, far=pause > 0, pause=pause) as requests, redirect_stdout(printed):
        main([*arguments, "--store", uri])
    found = {
        "seconds": round(time.monotonic() - began, 2),
        "cpu": round(time.process_time() - used, 2),
        "requests": dict(requests),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "printed": len(printed.getvalue()),
    }
    print(json.dumps(found))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's objects by an S3 server in memory; yield the URI of the store."""
    command = [sys.executable, "-m", "benchmarks.store_size", "--serve", str(folder)]
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    with (
        mock.patch.dict(os.environ, keys),
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with mock.patch.dict(os.environ, AWS_ENDPOINT_URL=url, AWS_DEFAULT_REGION="us-east-1"):
            yield f"s3://{BUCKET}/store"
        server.terminate()


def serve(folder: Path) -> None:
    """Serve a folder's objects until this process is ended."""
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"store/{path.relative_to(folder).as_posix()}"
            backend.put_object(BUCKET, name, path.read_bytes())
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    while True:
        time.sleep(60)


def main() -> None:
    """Measure all sizes, and print a table and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, nargs="+", default=[100, 200, 1000])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--folder", type=Path, help="keep the made-up stores here")
    parser.add_argument("--s3", action="store_true", help="serve them by an S3 server")
    parser.add_argument("--pause", type=float, default=0, help="seconds added to each request")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    parser.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    if options.inside:
        run_inside(options.inside, options.store, options.pause)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for chains in options.chains:
            folder = (options.folder or Path(scratch)) / f"chains-{chains}"
            if not folder.exists():
                command = [sys.executable, "-m", "benchmarks.made_up_store", str(folder)]
                subprocess.run([*command, "--chains", str(chains)], cwd=ROOT, check=True)
            room = Path(scratch, f"room-{chains}")
            room.mkdir()
            rows += _measure_size(options, chains, folder, room)
    if options.json:
        print(json.dumps(rows))


def _measure_size(
    options: argparse.Namespace, chains: int, folder: Path, room: Path
) -> list[dict[str, Any]]:
    rows = []
    opened = served(folder) if options.s3 else _as_it_is(folder)
    with opened as uri:
        for name in options.commands:
            row: dict[str, Any] = {"chains": chains}
            row |= measure(name, uri, room, chains, options.pause)
            rows.append(row)
            counts = ", ".join(f"{count:,} {kind}" for kind, count in row["requests"].items())
            print(
                f"{chains:>6} {name:>11} {row['seconds']:>8.1f} s {row['cpu']:>6.1f} s of CPU "
                f"{row['megabytes']:>6} MB  "
                f"{sum(row['requests'].values()):>7,} requests ({counts})",
                flush=True,
            )
    return rows


@contextmanager
def _as_it_is(folder: Path) -> Iterator[str]:
    yield str(folder)


if __name__ == "__main__":
    main()
