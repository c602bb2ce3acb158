"""Say what an error of MLflow means: ask again, ask never, or leave out this one run.

| class | what it means | what a tracker does |
|---|---|---|
| Unreachable | MLflow does not answer now | keeps everything, and asks again |
| Unusable | it takes nothing until a person mends it | says so once, and drops what it has |
| RunRefused | it takes all but this run | says so, and goes on with the next |
| ServerEmptied | it lost a run that it had | sends again what it has sent |
| RunDeleted | somebody deleted a run | the same, for this run and those nested in it |

Records are the truth. What a tracker dropped is shown by `jobs.report --sync-mlflow`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.store.passwords import without_passwords
from orchestrator.tracking.runs import Run

AGAIN = "python -m jobs.report --sync-mlflow shows everything afterwards"
NAMES = "MLFLOW_TRACKING_URI (or --tracking-uri)"


class MlflowError(Exception):
    """MLflow did not do what it was asked. The message says why and what to do, in one sentence."""


class Unreachable(MlflowError):
    """MLflow does not answer now, or not this."""


class Unusable(MlflowError):
    """MLflow will not take anything until a person mends it."""


class RunRefused(MlflowError):
    """MLflow will never accept this run as it is, so a second attempt does not help."""


class ServerEmptied(MlflowError):
    """A run that MLflow held does not exist any more, because the server was emptied."""


class RunDeleted(ServerEmptied):
    """A person deleted a run, or a job that had created the same run at the same moment."""

    def __init__(self, text: str, key: str) -> None:
        """`key`: of the run."""
        super().__init__(text)
        self.key = key


# What an error says, as a pattern, and how to mend it. The first row that applies counts.
UNUSABLE = (
    (
        "out-of-date database schema",
        "back up the database, then: mlflow db upgrade URI (with the MLflow that is installed "
        "here)",
    ),
    (
        "can't locate revision",
        "a newer MLflow made this database: install that version here, or name another database "
        f"by {NAMES}",
    ),
    (
        r"not a database|is malformed|no such (table|column)|table \S+ already exists"
        "|duplicate column",
        "the database is damaged or half made: move the file away",
    ),
    (
        "unable to open database|readonly database|permission denied|permissionerror",
        f"give this user the right to write the database and its folder, or correct {NAMES}",
    ),
    (
        "has no locks",
        f"a database file needs them: set {NAMES} to a server, or to a file on a local disk",
    ),
    (
        "modulenotfounderror|importerror",
        "install the package that this database needs, or start a server (mlflow server) there",
    ),
    (
        "certificate|ssl: |sslerror",
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of the server's authority, or "
        f"correct {NAMES} (http or https, port)",
    ),
    (
        "databricks|unity catalog",
        f"Databricks is not supported: {NAMES} must be like http://host:5000 or "
        "sqlite:////folder/mlflow.db",
    ),
    (
        "header value",
        "its value has a line's end, or other characters that no header has: correct "
        "MLFLOW_TRACKING_TOKEN, or the user and password",
    ),
    (
        "(must be|convert).*mlflow_|mlflow_.*(must be|convert)",
        "correct that variable of the environment, or unset it",
    ),
    (
        "unsupported uri|filesystem tracking backend|could not parse",
        f"{NAMES} must be like http://host:5000 or sqlite:////folder/mlflow.db",
    ),
    ("unauthenticated", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    (
        "permission_denied",
        "add the name that you call it by to the server's --allowed-hosts, with its port",
    ),
    (
        "endpoint_not_found|not in a valid json format|error code 405",
        f"what answers there is no MLflow: correct {NAMES}",
    ),
)
# What databases say when two jobs write the same thing at the same moment. The second try finds it.
SAME_MOMENT = "unique constraint|duplicate (key|entry)"
# What MLflow says of a run that was deleted.
DELETED = "must be in the 'active' state.*deleted"
# Codes by which MLflow refuses one run. The last is that of an experiment of another account.
THIS_RUN = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "PERMISSION_DENIED"}


def explain(error: Exception, uri: str, run: Run | None = None) -> MlflowError:
    """Return what an error means that MLflow, its transport or its database raised.

    Args:
        error: The error.
        uri: Where MLflow is.
        run: The run that was put there, if there was one.
    """
    if isinstance(error, MlflowError):
        return error
    code = str(getattr(error, "error_code", ""))
    told = " ".join(str(error).split())
    # The value of a header may be a secret.
    shown = told if "header value" not in told.lower() else "a header cannot be sent"
    reason = without_passwords(f"{type(error).__name__}: {shown[:300]}")
    where = f"MLflow at {without_passwords(uri)}"
    everything = f"{type(error).__name__} {code} {told}".lower()
    if run and re.search(SAME_MOMENT, everything):
        return Unreachable(f"{where} was told of {run.name!r} by another job, too ({reason})")
    if run and re.search(DELETED, everything):
        return RunDeleted(f"{where} lacks {run.name!r}, which was deleted ({reason})", run.key)
    if run and code == "RESOURCE_DOES_NOT_EXIST":
        return ServerEmptied(f"{where} lacks a run that it had ({reason})")
    if run and code in THIS_RUN:
        return RunRefused(f"{run.kind} run {run.name!r}: {reason}")
    for pattern, fix in UNUSABLE:
        if re.search(pattern, everything):
            return Unusable(f"{where} cannot be used ({reason}): {fix}")
    return Unreachable(
        f"{where} does not answer ({reason}): start it (mlflow server), or correct {NAMES}"
    )


@contextmanager
def explained(uri: str, run: Run | None = None) -> Iterator[None]:
    """Raise an MlflowError for whatever MLflow, its transport or its database raises."""
    try:
        yield
    except Exception as error:
        raise explain(error, uri, run) from error
