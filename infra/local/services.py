"""The services of a local cluster: how each is started, and how one sees that it is ready. Secrets travel in environments."""

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
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.processes import NotStarted
from infra.local.settings import BUCKET, Settings, postgres_user, write_private

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
NODE = (
    f"--node-ip-address={LOOPBACK}",
    "--min-worker-port=0",
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",  # the usual one is one node's: any other on this machine would take no jobs
    "--disable-usage-stats",
)
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
    seconds: float = 120  # until it is ready
    patience: float = 10  # when it is asked to end
    tries: int = 1


def services(settings: Settings) -> Iterator[Service]:
    """All of them, in the order in which they need each other."""
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
    for number in range(1, settings.workers + 1):
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
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
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
        uri = f"postgresql+pg8000://mlflow:{settings.database_password}@{LOOPBACK}:{settings.ports['postgres']}/postgres"
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
    return ray_node(
        settings,
        "head",
        f"dashboard http://{LOOPBACK}:{port}",
        lambda: dashboard(settings, "/api/version") is not None,
        "--head",
        f"--port={settings.ports['ray']}",
        "--num-cpus=0",
        "--num-gpus=0",
        f"--resources={json.dumps({'orchestrator': 64})}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={port}",
        f"--temp-dir={settings.ray_folder}",
        f"--ray-client-server-port={settings.ports['client']}",
    )


def worker(settings: Settings, number: int) -> Service:
    name = f"worker-{number}"
    return ray_node(
        settings,
        name,
        f"{settings.cpus} CPUs",
        lambda: name in alive_resources(settings),
        f"--address={LOOPBACK}:{settings.ports['ray']}",
        f"--num-cpus={settings.cpus}",
        # Nodes unpack a job's code below their own folder, anew: in a shared one, from under the feet of who works there.
        f"--temp-dir={settings.ray_folder / str(number)}",
        f"--resources={json.dumps({name: 1})}",
    )


def ray_node(
    settings: Settings, name: str, where: str, ready: Callable[[], bool], *options: str
) -> Service:
    return Service(
        name=name,
        command=(sys.executable, "-m", "infra.local.ray_node", "start", "--block", *NODE, *options),
        environment=surroundings() | settings.job_environment | settings.ray_environment,
        ready=ready,
        where=where,
        tries=3,  # Ray gives a node 30 s to start, which a busy machine may exceed
        patience=30,
    )


def surroundings() -> dict[str, str]:
    """What a service needs of our own environment: no more than that, so that no secret of a person's shell is in it."""
    programs = os.pathsep.join(
        filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH")))
    )
    return {name: os.environ[name] for name in PASSED if name in os.environ} | {
        "PATH": programs,  # so that `python` of a job's command line is this one
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def answers(url: str) -> bool:
    """Whether somebody answers there."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def bucket_is_there(settings: Settings) -> bool:
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
    """Names of what the cluster's nodes that are alive have."""
    answer = dashboard(settings, "/api/v0/nodes")
    nodes = answer["data"]["result"]["result"] if answer else ()
    return {name for node in nodes if node["state"] == "ALIVE" for name in node["resources_total"]}


def dashboard(settings: Settings, path: str) -> dict[str, Any] | None:
    """What our dashboard answers; None while it does not, or where another cluster's, which refuses our token, has the port."""
    token = (settings.folder / "token").read_text()
    url = f"http://{LOOPBACK}:{settings.ports['dashboard']}{path}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=10
        ) as answer:
            return json.load(answer)
    except OSError:
        return None


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), 2).close()
    except OSError:
        return False
    return True
