"""Run `ray start` on loopback only: `python -m infra.local.ray_node start --head ...`.

Ray takes 127.0.0.1 for a mistake and listens on the machine's outer address instead; some of its
processes listen on all addresses. On macOS and Windows it stays on loopback. The variable for that
works on Linux too, but then Ray refuses a second node, which a cluster on one machine needs. This
module sets both, for this process and its children.
"""

import os
import sys

# Ray reads this when it is imported, here and in every child process.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from ray._private import ray_constants, services
from ray.scripts import scripts


def main() -> None:
    """Run the command line of `ray`."""
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    sys.exit(scripts.main())


if __name__ == "__main__":
    main()
