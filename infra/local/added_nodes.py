"""Add nodes to the local cluster when steps ask for them, and take them away when they idle.

Ray's autoscaler runs beside the head, and asks a provider for machines. `Nodes` starts each as a
process of `infra.local.ray_node`, so that it stays on loopback and has a folder of its own. A node
that was killed is missed, and the autoscaler adds another one.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import (
    FakeMultiNodeProvider,
)
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


class Nodes(FakeMultiNodeProvider):
    """Nodes that are processes of this machine."""

    _nodes: dict[str, dict[str, Any]]  # by id: tags and, of all but the head, the process

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Return the nodes that live. One whose process has ended is gone."""
        with self.lock:
            for node, details in list(self._nodes.items()):
                if "process" in details and details["process"].poll() is not None:
                    del self._nodes[node]
        return super().non_terminated_nodes(tag_filters)

    def _create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        with self.lock:
            node = self._next_hex_node_id()
            kind = tags[TAG_RAY_USER_NODE_TYPE]
            folder = Path(self.provider_config["folder"]) / str(self._next_node_id)
            command = [sys.executable, "-m", "infra.local.ray_node", "start", "--block"]
            command += self.provider_config["options"]
            command += [f"--address={self.provider_config['gcs_address']}", f"--temp-dir={folder}"]
            command += [f"--num-cpus={int(resources['CPU'])}", "--num-gpus=0"]
            environment = os.environ | {
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node,
                "RAY_CLOUD_INSTANCE_ID": node,
                "RAY_NODE_TYPE_NAME": kind,
            }
            process = subprocess.Popen(command, env=environment)
            self._nodes[node] = {
                "process": process,
                "tags": {
                    TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                    TAG_RAY_USER_NODE_TYPE: kind,
                    TAG_RAY_NODE_NAME: node,
                    TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
                    **tags,
                },
            }

    def _terminate_node(self, node: dict[str, Any]) -> None:
        node["process"].terminate()
