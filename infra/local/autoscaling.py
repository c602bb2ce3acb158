"""Configure the autoscaler of a local cluster that begins without a worker.

`infra.local.added_nodes` is what the autoscaler then asks for nodes. Nothing here imports Ray.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Names that Ray's autoscaler has for the head of a cluster whose nodes are made up.
HEAD_ID = 51 * "f" + "00000"
HEAD_KIND = "ray.head.default"
KIND = "worker"
IDLE_MINUTES = 1
# Lists that Ray's autoscaler looks for, although nothing here uses them.
LISTS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
# What the head must know so that the autoscaler takes it for one of its machines.
HEAD_ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "2",
}


def configuration(
    address: str, options: list[str], folder: Path, most: int, cpus: int, head: Mapping[str, float]
) -> dict[str, Any]:
    """Return the autoscaler's configuration, in the format of `ray up`.

    Args:
        address: Of the head.
        options: Of `ray start` that every node of the cluster has.
        folder: Where each node gets a folder.
        most: Nodes at once.
        cpus: Of each node.
        head: Resources of the head.
    """
    return {
        "cluster_name": "local",
        "max_workers": most,
        "upscaling_speed": most,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "external",
            "module": "infra.local.added_nodes.Nodes",
            "gcs_address": address,
            "options": options,
            "folder": str(folder),
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD_KIND,
        "available_node_types": {
            HEAD_KIND: {"resources": head, "node_config": {}, "max_workers": 0},
            KIND: {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": most},
        },
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
    }


def write_configuration(path: Path, document: dict[str, Any]) -> None:
    """Write a configuration for `ray start --autoscaling-config`."""
    path.write_text(json.dumps(document, indent=1))
