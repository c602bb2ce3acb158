"""Define the services of a local cluster: how each starts, and how to see that it is ready.

Secrets travel in environments.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.autoscaling import HEAD_ENVIRONMENT, configuration, write_configuration
from infra.local.processes import NotStarted
from infra.local.settings import BUCKET, Settings, postgres_user, write_private

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
NODE = (
    f"--node-ip-address={LOOPBACK}",
    "--min-worker-port=0",
    "--max-worker-port=0",
    # Only one node of a machine gets the usual port, and the others would accept no jobs.
    "--dashboard-agent-listen-port=0",
    "--disable-usage-stats",
)
HEAD = {"orchestrator": 64}  # resources of the head, which trains nothing
NO_VARIABLES: dict[str, str] = {}
PASSED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


@dataclass(frozen=True)
class Service:
    """One process and what it starts."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: Callable[[], bool]
    where: str
    prepare: Callable[[], None] | None = None
    user: str | None = None
    seconds: float = 120  # to become ready
    grace: float = 10  # seconds to end after SIGTERM
    tries: int = 1


def services(settings: Settings) -> Iterator[Service]:
    """Yield all services, those that others need first."""
    if find_spec("swift"):
        yield s3(settings)
    else:
        raise NotStarted(
            "the S3 server is not installed: pip install swift, which requirements.lock names"
        )
    if settings.database == "postgres":
        yield postgres(settings)
    yield mlflow(settings)
    yield head(settings)
    for number in range(1, 1 + settings.workers * (not settings.from_zero)):
        yield worker(settings, number)


def s3(settings: Settings) -> Service:
    port = settings.ports["s3"]
    return Service(
        name="s3",
        command=(
            sys.executable,
            "-m",
            "infra.local.swift",
            str(settings.folder / "s3"),
            "--port",
            str(port),
            "--bucket",
            BUCKET,
        ),
        environment=surroundings() | settings.job_environment,
        ready=lambda: (
            answers(f"http://{LOOPBACK}:{port}/healthcheck") and bucket_is_there(settings)
        ),
        where=f"http://{LOOPBACK}:{port}, bucket {BUCKET}",
    )


def postgres(settings: Settings) -> Service:
    data, port = settings.folder / "postgres", settings.ports["postgres"]

    def prepare() -> None:
        if (data / "PG_VERSION").exists():
            return
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        password = settings.folder / "postgres-password"
        write_private(password, settings.database_password)
        user = postgres_user()
        if user:
            shutil.chown(data, user, user)
            shutil.chown(password, user)
        command = [
            "initdb",
            "--pgdata",
            str(data),
            "--username=mlflow",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
        ]
        command += ["--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            command,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd="/",
            text=True,
            capture_output=True,
            check=False,
        )
        password.unlink()
        if made.returncode:
            raise NotStarted(
                f"PostgreSQL: {made.stderr.strip()}; or use another folder with --database sqlite"
            )

    options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    return Service(
        name="postgres",
        command=(
            "postgres",
            "-D",
            str(data),
            *chain.from_iterable(("-c", f"{name}={value}") for name, value in options.items()),
        ),
        environment=surroundings(),
        ready=lambda: listens(port),
        where=f"{LOOPBACK}:{port}",
        prepare=prepare,
        user=postgres_user(),
    )


def mlflow(settings: Settings) -> Service:
    port = settings.ports["mlflow"]
    if settings.database == "postgres":
        server = f"{LOOPBACK}:{settings.ports['postgres']}"
        uri = f"postgresql+pg8000://mlflow:{settings.database_password}@{server}/postgres"
    else:
        uri = f"sqlite:///{settings.folder / 'mlflow.db'}"
    return Service(
        name="mlflow",
        command=(sys.executable, "-m", "infra.mlflow.serve", "--port", str(port), "--workers", "1"),
        environment=surroundings()
        | {
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_ARTIFACTS_DESTINATION": str(settings.folder / "mlartifacts"),
        },
        ready=lambda: answers(f"http://{LOOPBACK}:{port}/health"),
        where=f"http://{LOOPBACK}:{port}",
        seconds=240,
    )


def head(settings: Settings) -> Service:
    port = settings.ports["dashboard"]
    where = f"dashboard http://{LOOPBACK}:{port}"
    autoscaling: list[str] = []
    if settings.from_zero:
        where += f", adds up to {settings.workers} workers of {settings.cpus} CPUs"
        autoscaling.append(f"--autoscaling-config={settings.folder / 'autoscaler.json'}")
    return ray_node(
        settings,
        "head",
        where,
        lambda: dashboard(settings, "/api/version") is not None,
        "--head",
        f"--port={settings.ports['ray']}",
        "--num-cpus=0",
        "--num-gpus=0",
        f"--resources={json.dumps(HEAD)}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={port}",
        f"--temp-dir={settings.ray_folder}",
        f"--ray-client-server-port={settings.ports['client']}",
        *autoscaling,
        prepare=(lambda: prepare_autoscaler(settings)) if autoscaling else None,
        extra=HEAD_ENVIRONMENT if autoscaling else {},
    )


def prepare_autoscaler(settings: Settings) -> None:
    document = configuration(
        f"{LOOPBACK}:{settings.ports['ray']}",
        list(NODE),
        settings.ray_folder,
        settings.workers,
        settings.cpus,
        {"CPU": 0} | HEAD,
    )
    write_configuration(settings.folder / "autoscaler.json", document)


def worker(settings: Settings, number: int) -> Service:
    name = f"worker-{number}"
    return ray_node(
        settings,
        name,
        f"{settings.cpus} CPUs",
        lambda: name in alive_resources(settings),
        f"--address={LOOPBACK}:{settings.ports['ray']}",
        f"--num-cpus={settings.cpus}",
        # A node unpacks a job's code below its folder, and would replace the code of other nodes.
        f"--temp-dir={settings.ray_folder / str(number)}",
        f"--resources={json.dumps({name: 1})}",
    )


def ray_node(
    settings: Settings,
    name: str,
    where: str,
    ready: Callable[[], bool],
    *options: str,
    prepare: Callable[[], None] | None = None,
    extra: dict[str, str] = NO_VARIABLES,
) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", "infra.local.ray_node", "start", "--block", *NODE, *options),
        environment=surroundings() | settings.job_environment | settings.ray_environment | extra,
        ready=ready,
        where=where,
        prepare=prepare,
        # Ray gives a node 30 s to start, which a busy machine may exceed.
        tries=3,
        grace=30,
    )


def surroundings() -> dict[str, str]:
    """Return the part of our environment that services need.

    They get no more, so that no secret of the user's shell reaches them.
    """
    programs = os.pathsep.join(
        filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH")))
    )
    return {name: os.environ[name] for name in PASSED if name in os.environ} | {
        # `python` in a job's command line must be this interpreter.
        "PATH": programs,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def answers(url: str) -> bool:
    """Return whether a server answers at this URL."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def bucket_is_there(settings: Settings) -> bool:
    """Return whether the S3 server has the cluster's bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{LOOPBACK}:{settings.ports['s3']}",
        region_name="us-east-1",
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    try:
        client.head_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True


def alive_resources(settings: Settings) -> set[str]:
    """Return the names of the resources of live nodes."""
    answer = dashboard(settings, "/api/v0/nodes")
    nodes = answer["data"]["result"]["result"] if answer else ()
    found: set[str] = set()
    for node in nodes:
        if node["state"] == "ALIVE":
            found |= set(node["resources_total"])
    return found


def dashboard(settings: Settings, path: str) -> dict[str, Any] | None:
    """Return the answer of our dashboard, or None while it does not answer.

    The dashboard of another cluster on this port refuses our token, which also gives None.
    """
    token = (settings.folder / "token").read_text()
    url = f"http://{LOOPBACK}:{settings.ports['dashboard']}{path}"
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def listens(port: int) -> bool:
    """Return whether a process listens on this port."""
    try:
        socket.create_connection((LOOPBACK, port), 2).close()
    except OSError:
        return False
    return True
