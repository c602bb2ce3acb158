"""Serve MLflow: `python -m infra.mlflow.serve`, the same on a laptop, in Docker and on Kubernetes.

What is secret comes from the environment and never enters a command line: MLFLOW_BACKEND_STORE_URI (it holds the database's
password) and, with --auth, MLFLOW_AUTH_ADMIN_PASSWORD and MLFLOW_FLASK_SERVER_SECRET_KEY. The database's tables are made when
there are none; an older schema is refused, and `mlflow db upgrade` is for a person to run, after a backup.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BACKEND = "MLFLOW_BACKEND_STORE_URI"
AUTH = ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server; does not return."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 in a container"
    )
    parser.add_argument("--port", default="5000")
    parser.add_argument("--workers", default="2", help="processes; each takes about 250 MB")
    parser.add_argument(
        "--allowed-hosts",
        help="names and ports that clients call it by, such as 'mlflow:5000,localhost:*'",
    )
    parser.add_argument(
        "--auth", action="store_true", help="ask everybody for a name and a password"
    )
    options = parser.parse_args(arguments)
    needed = (BACKEND, *AUTH) if options.auth else (BACKEND,)
    if missing := [name for name in needed if not os.environ.get(name)]:
        sys.exit(
            f"error: set {' and '.join(missing)} in the environment; infra/README.md says to what"
        )
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        options.host,
        "--port",
        options.port,
    ]
    command += ["--workers", options.workers]
    if options.allowed_hosts:
        command += ["--allowed-hosts", options.allowed_hosts]
    if options.auth:
        command += ["--app-name", "basic-auth"]
        os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(auth_settings(os.environ[BACKEND]))
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = (
        "false"  # seven more processes that nothing here uses
    )
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.execv(command[0], command)


def auth_settings(database: str) -> Path:
    """Write MLflow's settings of basic-auth to a file that only we can read: it names the database, and so its password.

    Who has an account may read everything and change what is their own. Users live beside the runs, in tables of their own.
    """
    number, path = tempfile.mkstemp(prefix="mlflow-auth-", suffix=".ini")  # with rights 0600
    with os.fdopen(number, "w") as file:
        file.write(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = {database.replace('%', '%%')}\n"
            "admin_username = admin\n"
            "auth_cache_ttl_seconds = 60\n"  # else every request hashes its password anew
        )
    return Path(path)


if __name__ == "__main__":
    main()
