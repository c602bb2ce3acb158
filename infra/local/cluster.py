"""A cluster on this machine, as real as one machine can be: `python -m infra.local.cluster up`, `status`, `down`.

A Ray head that trains nothing, workers that do, MLflow on PostgreSQL (else sqlite), an S3 server with a bucket: all
on loopback, Ray behind a token, the store behind keys. What is not running is started; `down` stops what `up` started and
nothing else. Results and runs stay in the folder, so that the next `up` finds them. What clients need is in FOLDER/environment:

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
    """Start what is not running, in order, each when what it needs is ready; print where everything is."""
    settings = Settings.open(
        folder, options.workers, options.cpus, options.database, not options.any_ports
    )
    ledger = Ledger(folder)
    with alone(folder):
        for service in services(settings):
            if (options.names and service.name not in options.names) or ledger.alive(service.name):
                continue
            ledger.stop(service.name, 0)  # what is left of an earlier one
            start(service, ledger)
            print(f"{service.name}: {service.where}", flush=True)
        settings.write_environment()
    print(f"all of it: source {settings.environment_file}")


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
            ledger.stop(service.name, service.patience)
            if not left:
                raise


def down(folder: Path, names: Sequence[str], forget: bool) -> None:
    """Stop what is running, the last started first."""
    if not folder.exists():
        print(f"nothing was started from {folder}")
        return
    settings, ledger = Settings.open(folder), Ledger(folder)
    with alone(folder):
        patience = {service.name: service.patience for service in services(settings)}
        for name in reversed(ledger.names()):
            if not names or name in names:
                ledger.stop(name, patience.get(name, 5))
                print(f"{name}: stopped", flush=True)
    if not ledger.names():
        shutil.rmtree(
            settings.ray_folder, ignore_errors=True
        )  # sessions' logs and sockets, nothing else
        if forget:
            shutil.rmtree(folder)


def status(folder: Path) -> int:
    """Print which services run; returns 0 when all do."""
    if not folder.exists():
        print(f"nothing was started from {folder}: python -m infra.local.cluster up")
        return 1
    ledger, missing = Ledger(folder), 0
    for service in services(Settings.open(folder)):
        process = ledger.alive(service.name)
        missing += process is None
        print(
            f"{service.name}: {f'runs as {process.pid}, {service.where}' if process else 'does not run'}"
        )
    return int(missing > 0)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One command at a time works on a folder."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), False)
        yield


if __name__ == "__main__":
    main()
