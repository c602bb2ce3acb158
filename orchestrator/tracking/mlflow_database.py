"""Make MLflow's database file, and check a database or server before MLflow relies on it."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.store.passwords import without_passwords
from orchestrator.tracking.mlflow_errors import NAMES, Unreachable, Unusable

if TYPE_CHECKING:
    from mlflow import MlflowClient

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def sqlite_file(uri: str) -> Path:
    """Return the file of an sqlite URI, which may end with options such as `?timeout=5`."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


def new_database(path: Path) -> None:
    """Make a new sqlite file of MLflow's, beside its place, and move it there when it is whole.

    MLflow makes its tables one by one, which takes seconds. A file that a kill left half made could
    never be used again. Only one process at a time may call this.
    """
    from mlflow import MlflowClient

    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)
    os.replace(beside, path)


def check_database(uri: str, seconds: float) -> None:
    """Raise MlflowError if a database cannot be reached. MLflow would try ten times, and wait.

    Args:
        uri: Where MLflow is. A server's address is not checked.
        seconds: How long a connection may take.
    """
    scheme, _, rest = uri.partition("://")
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        _check_file(sqlite_file(f"sqlite://{rest}"), uri)
    elif kind in PORTS:
        from sqlalchemy.engine import make_url

        try:
            url = make_url(uri)
        except ValueError as error:
            raise Unusable(
                f"{without_passwords(uri)} is no address of a database ({error}): correct {NAMES}"
            ) from error
        try:
            with socket.create_connection((url.host or "", url.port or PORTS[kind]), seconds):
                pass
        except OSError as error:
            raise Unreachable(
                f"the database {without_passwords(uri)} does not answer ({error}): start it, or "
                f"correct {NAMES}"
            ) from error


def _check_file(path: Path, uri: str) -> None:
    """Raise Unusable unless the file can be written, or made."""
    there = next(each for each in (path, *path.parents) if each.exists())
    right_kind = there.is_file() if there == path else there.is_dir()
    if not right_kind or not os.access(there, os.W_OK):
        what = "is a folder" if path.is_dir() else f"cannot be written ({there})"
        raise Unusable(
            f"MLflow at {uri} cannot be used, because it {what}: give this user the right to "
            f"write it, or correct {NAMES}"
        )


def check_server(client: "MlflowClient", uri: str) -> None:
    """Raise Unusable if what answers is some other server that speaks JSON."""
    from mlflow.exceptions import MlflowException

    if client.search_experiments(max_results=1):
        return
    try:
        first = client.get_experiment("0")
    except MlflowException as error:
        # A person has deleted MLflow's own experiment.
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    else:
        if first.experiment_id != "0":
            raise Unusable(
                f"what answers at {without_passwords(uri)} is no MLflow: correct {NAMES}"
            )
