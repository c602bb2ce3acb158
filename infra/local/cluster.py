"""Start and stop a cluster on this machine: `python -m infra.local.cluster up | status | down`.

The cluster has a Ray head that trains nothing, workers that train, MLflow on PostgreSQL (else
sqlite), and an S3 server with a bucket. Everything listens on loopback. Ray asks for a token, and
the store asks for keys.

`up` starts every service that does not run, and `down` stops what `up` started and
nothing else. Results and runs stay in the folder, so the next `up` finds them. Clients read their
settings from FOLDER/environment:

    source stepchain-cluster/environment
    python -m jobs.submit -- python -m jobs.campaign run digits_wilson_alpha
"""

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.local.processes import Ledger, NotStarted
from infra.local.services import Service, services
from infra.local.settings import Settings

FOLDER = Path("stepchain-cluster")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("up", "status", "down"))
    parser.add_argument("names", nargs="*", help="of services, such as worker-1; by default all")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--workers", type=int, help="Ray nodes that train (first up: 2)")
    parser.add_argument(
        "--cpus", type=int, help="of each worker node (first up: this machine's, shared)"
    )
    parser.add_argument(
        "--database",
        choices=("postgres", "sqlite"),
        help="of MLflow (first up: postgres if there is initdb)",
    )
    parser.add_argument(
        "--from-zero",
        action="store_true",
        help="start no worker; up to --workers are added when steps ask for them (first up)",
    )
    parser.add_argument(
        "--any-ports", action="store_true", help="not the usual ones where they are free (first up)"
    )
    parser.add_argument(
        "--forget", action="store_true", help="with down: delete the folder, results included"
    )
    options = parser.parse_intermixed_args(arguments)
    folder = options.folder.absolute()
    try:
        if options.verb == "up":
            up(folder, options)
        elif options.verb == "down":
            down(folder, options.names, options.forget)
        else:
            sys.exit(status(folder))
    except NotStarted as error:
        sys.exit(f"error: {error}")


def up(folder: Path, options: argparse.Namespace) -> None:
    """Start services that do not run, in order, and print their addresses.

    A service starts when those it needs are ready.
    """
    settings = Settings.open(
        folder,
        options.workers,
        options.cpus,
        options.database,
        not options.any_ports,
        options.from_zero,
    )
    ledger = Ledger(folder)
    with alone(folder):
        for service in services(settings):
            if (options.names and service.name not in options.names) or ledger.alive(service.name):
                continue
            # Processes of an earlier start may be left.
            ledger.stop(service.name, 0)
            start(service, ledger)
            print(f"{service.name}: {service.where}", flush=True)
        settings.write_environment()
    print(f"to use it: source {settings.environment_file}")


def start(service: Service, ledger: Ledger) -> None:
    """Start one service and wait until it answers. Raises NotStarted."""
    if service.prepare:
        service.prepare()
    for left in reversed(range(service.tries)):
        ledger.start(service.name, service.command, service.environment, service.user)
        try:
            ledger.wait(service.name, service.ready, service.seconds)
            return
        except NotStarted:
            ledger.stop(service.name, service.grace)
            if not left:
                raise


def down(folder: Path, names: Sequence[str], forget: bool) -> None:
    """Stop services, the last started first."""
    if not folder.exists():
        print(f"nothing was started from {folder}")
        return
    settings, ledger = Settings.open(folder), Ledger(folder)
    with alone(folder):
        grace = {service.name: service.grace for service in services(settings)}
        for name in reversed(ledger.names()):
            if not names or name in names:
                ledger.stop(name, grace.get(name, 5))
                print(f"{name}: stopped", flush=True)
    if not ledger.names():
        # Ray's folder holds logs and sockets of sessions, and nothing else.
        shutil.rmtree(settings.ray_folder, ignore_errors=True)
        if forget:
            shutil.rmtree(folder)


def status(folder: Path) -> int:
    """Print which services run, and return 0 when all do."""
    if not folder.exists():
        print(f"nothing was started from {folder}: python -m infra.local.cluster up")
        return 1
    ledger = Ledger(folder)
    missing = 0
    for service in services(Settings.open(folder)):
        process = ledger.alive(service.name)
        missing += process is None
        state = f"runs as {process.pid}, {service.where}" if process else "does not run"
        print(f"{service.name}: {state}")
    return int(missing > 0)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that one command at a time works on it."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), False)
        yield


if __name__ == "__main__":
    main()
