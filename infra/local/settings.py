"""Keep the ports, sizes and secrets of a local cluster in files that only their owner reads."""

import getpass
import hashlib
import json
import os
import pwd
import secrets
import shlex
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

# The usual ports, used where they are free.
PORTS = {
    "s3": 8333,
    "postgres": 5433,
    "mlflow": 5000,
    "ray": 6379,
    "client": 10001,
    "dashboard": 8265,
}
BUCKET = "stepchain"


@dataclass(frozen=True)
class Settings:
    """Settings of all services of a local cluster."""

    folder: Path
    ports: dict[str, int]
    workers: int
    cpus: int  # of each worker
    database: str
    access_key: str
    secret_key: str
    database_password: str
    from_zero: bool = False  # whether workers are added when steps ask for them

    @classmethod
    def open(
        cls,
        folder: Path,
        workers: int | None = None,
        cpus: int | None = None,
        database: str | None = None,
        usual_ports: bool = True,
        from_zero: bool = False,
    ) -> Self:
        """Return the settings that the folder keeps, or new ones.

        Given sizes replace those kept. Database, ports and `from_zero` are chosen once.
        """
        file = folder / "settings.json"
        if file.exists():
            kept = json.loads(file.read_text())
        else:
            folder.mkdir(parents=True, exist_ok=True)
            # Root runs PostgreSQL as another user, who must be able to enter the folder.
            folder.chmod(0o711 if os.getuid() == 0 else 0o700)
            kept = {
                "ports": free_ports(usual_ports),
                "workers": 2,
                "cpus": 0,
                "database": database or ("postgres" if has_postgres(folder) else "sqlite"),
                "access_key": "stepchain:jobs",
                "secret_key": secrets.token_urlsafe(32),
                "database_password": secrets.token_urlsafe(32),
            }
            write_private(folder / "token", secrets.token_hex(32))
        if database and database != kept["database"]:
            raise SystemExit(
                f"error: {folder} keeps its runs in {kept['database']}: "
                f"give another --folder for {database}"
            )
        kept["workers"] = workers or kept["workers"]
        kept["from_zero"] = from_zero or kept.get("from_zero", False)
        kept["cpus"] = cpus or kept["cpus"] or max(1, (os.cpu_count() or 1) // kept["workers"])
        settings = cls(folder, **kept)
        values = asdict(settings)
        del values["folder"]
        write_private(file, json.dumps(values, indent=1))
        return settings

    @property
    def environment_file(self) -> Path:
        return self.folder / "environment"

    @property
    def ray_folder(self) -> Path:
        """Folder of Ray's sessions. Its path is short, because a socket's may have 107 letters."""
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"stepchain-{getpass.getuser()}-{name}"

    @property
    def job_environment(self) -> dict[str, str]:
        """Variables that jobs need. Ray's processes have them, so submissions carry no secret."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "STEPCHAIN_STORE": f"s3://{BUCKET}/results",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports['mlflow']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def ray_environment(self) -> dict[str, str]:
        """Variables that tell Ray's clients and servers where the token is, but not the token."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            # The cluster stays on loopback: see ray_node.py.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def write_environment(self) -> None:
        """Write the file that users of the cluster source in their shell."""
        client = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.ports['dashboard']}"}
        variables = self.job_environment | self.ray_environment | client
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        write_private(self.environment_file, "".join(lines))


def has_postgres(folder: Path) -> bool:
    """Return whether a user other than root can run PostgreSQL on this folder."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        return False
    if postgres_user() is None:
        return True
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def postgres_user() -> str | None:
    """Return the user that runs PostgreSQL: for root the one of Debian's package, else None."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return pwd.getpwnam("nobody").pw_name


def free_ports(prefer_usual: bool) -> dict[str, int]:
    """Return the usual ports where they are free and wanted, else others."""
    ports: dict[str, int] = {}
    held: list[socket.socket] = []
    for name, usual in PORTS.items():
        taken = socket.socket()
        try:
            taken.bind(("127.0.0.1", usual if prefer_usual else 0))
        except OSError:
            taken.bind(("127.0.0.1", 0))
        held.append(taken)
        ports[name] = taken.getsockname()[1]
    for taken in held:
        taken.close()
    return ports


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read at any moment."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)
