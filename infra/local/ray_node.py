"""`ray start` that stays on loopback: `python -m infra.local.ray_node start --head ...`.

Ray takes 127.0.0.1 for a slip, and listens on this machine's outer address instead, on all of them in some of its processes. On
macOS and Windows it stays on loopback, and the variable that says so works on Linux too; but then it refuses a second node,
which a cluster on one machine is made of. So both are said to it here, for this process and what it starts.
"""

import os
import sys

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # read when ray is imported, here and in all that descends from here
)

from ray._private import ray_constants, services
from ray.scripts import scripts


def main() -> None:
    """The command line of `ray`."""
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    sys.exit(scripts.main())


if __name__ == "__main__":
    main()
