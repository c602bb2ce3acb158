"""Start a real Ray cluster on this machine whose autoscaler adds and removes made-up machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray

# The configuration that Ray's provider of made-up machines asks for, besides the machines.
PROVIDER = {
    "type": "fake_multinode",
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
LISTS = (
    "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands",
    "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
    "worker_start_ray_commands",
)  # fmt: skip
HEAD_TYPE = "ray.head.default"
HEAD_ID = 51 * "f" + "00000"
HEAD = {"CPU": 0, "orchestrator": 64}


@contextmanager
def run_autoscaling_cluster(folder: Path, kinds: dict[str, Any], most: int) -> Iterator[str]:
    """Run a head that trains nothing, without any worker; yield its address.

    Args:
        folder: For the configuration and the log.
        kinds: `available_node_types` of the machines that may be added.
        most: Machines that may be added in all.
    """
    address = f"{ray.util.get_node_ip_address()}:{free_port()}"
    configuration = folder / "autoscaler.json"
    configuration.write_text(json.dumps(_configuration(address, kinds, most)))
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += ["--port", address.rpartition(":")[2], "--num-cpus", "0", "--num-gpus", "0"]
    command += ["--resources", json.dumps({"orchestrator": 64}), "--include-dashboard", "false"]
    command += [f"--autoscaling-config={configuration}", "--disable-usage-stats"]
    environment = os.environ | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(address, head, folder / "head.log")
        yield address
    finally:
        _end(head, address)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


def _configuration(address: str, kinds: dict[str, Any], most: int) -> dict[str, Any]:
    head = {"resources": HEAD, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "made-up",
        "max_workers": most,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 60,
        "provider": PROVIDER | {"gcs_address": address},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {HEAD_TYPE: head, **kinds},
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
    }


def _wait_for(address: str, head: subprocess.Popen, log: Path) -> None:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + 120
    while time.monotonic() < end and head.poll() is None:
        with socket.socket() as one:
            if one.connect_ex((host, int(port))) == 0 and "--block" in log.read_text():
                return
        time.sleep(0.2)
    raise AssertionError(f"the head did not start: {log.read_text()}")


def _end(head: subprocess.Popen, address: str) -> None:
    """End the head, and the made-up machines, which are processes that outlive it."""
    head.send_signal(signal.SIGTERM)
    head.wait(timeout=60)
    for process in psutil.process_iter(["cmdline"]):
        if any(address in argument for argument in process.info["cmdline"] or ()):
            process.kill()
