"""Serve MLflow on a laptop, in Docker or on Kubernetes: `python -m infra.mlflow.serve`.

Secrets come from the environment and never enter a command line. They are MLFLOW_BACKEND_STORE_URI,
which holds the database's password, and with --auth MLFLOW_AUTH_ADMIN_PASSWORD and
MLFLOW_FLASK_SERVER_SECRET_KEY. MLflow makes the tables of an empty database and refuses an older
schema. Run `mlflow db upgrade` yourself then, after a backup.
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
    """Replace this process by the server. Does not return."""
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
    # Job execution would start seven more processes that nothing here uses.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.execv(command[0], command)


def auth_settings(database: str) -> Path:
    """Write the settings of MLflow's basic-auth, and return the file's path.

    Only this user can read the file, because it holds the database's password. An account may read
    everything and change its own runs. Accounts are tables in the same database.
    """
    number, path = tempfile.mkstemp(prefix="mlflow-auth-", suffix=".ini")
    with os.fdopen(number, "w") as file:
        file.write(
            "[mlflow]\n"
            "default_permission = READ\n"
            f"database_uri = {database.replace('%', '%%')}\n"
            "admin_username = admin\n"
            # Without a cache every request hashes its password again.
            "auth_cache_ttl_seconds = 60\n"
        )
    return Path(path)


if __name__ == "__main__":
    main()
