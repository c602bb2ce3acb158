"""A real S3 server for tests: OpenStack Swift and its s3api on one disk, in one process.

    python tests/servers/swift_server.py FOLDER SECRET

prints its URL once it answers, and ends when its standard input does, so that it cannot outlive whoever started it. Unlike a
server that imitates S3 in memory, this one checks signatures and checksums, writes to disk, and is slow to agree with itself:
of several conditional writes at once, more than one may win. The access key is `tester:tester`.
"""

import sys
from pathlib import Path

from swift.common.utils import SWIFT_CONF_FILE, monkey_patch, set_swift_dir

monkey_patch()  # before anything else is imported: all servers are green threads of this process

import eventlet  # noqa: E402
import eventlet.tpool  # noqa: E402
import eventlet.wsgi  # noqa: E402
from swift.common.http_protocol import SwiftHttpProtocol  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.utils import NullLogger  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

KINDS = ("account", "container", "object")
PIPELINE = "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo symlink proxy-server"
SETTINGS = {  # of a middleware, beyond its name
    "s3api": "s3_acl = false\nlocation = us-east-1\nallow_multipart_uploads = true\nmax_multi_delete_objects = 1000\n",
    "tempauth": "user_tester_tester = {secret} .admin\n",
    "proxy-server": "allow_account_management = true\naccount_autocreate = true\n",
}


def main(folder: Path, secret: str) -> None:
    """Serve what is, or will be, below `folder`."""
    sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in ("proxy", *KINDS)}
    (folder / "disk").mkdir(parents=True, exist_ok=True)
    (folder / Path(SWIFT_CONF_FILE).name).write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n\n[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    set_swift_dir(str(folder))
    common = f"[DEFAULT]\nswift_dir = {folder}\ndevices = {folder}\nmount_check = false\nfallocate_reserve = 0\n"
    for kind in KINDS:
        save_ring(folder / f"{kind}.ring.gz", sockets[kind].getsockname()[1])
        (folder / f"{kind}.conf").write_text(
            f"{common}\n[pipeline:main]\npipeline = {kind}-server\n\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    parts = [f"{common}\n[pipeline:main]\npipeline = {PIPELINE}\n"]
    for name in PIPELINE.split():
        kind, egg = ("app", "proxy") if name == "proxy-server" else ("filter", name)
        parts.append(f"[{kind}:{name}]\nuse = egg:swift#{egg}\n{SETTINGS.get(name, '').format(secret=secret)}")
    (folder / "proxy.conf").write_text("\n".join(parts))
    for kind, listening in sockets.items():
        options = {"protocol": SwiftHttpProtocol, "capitalize_response_headers": False}  # S3 says ETag, not Etag
        eventlet.spawn(eventlet.wsgi.server, listening, loadapp(str(folder / f"{kind}.conf")), NullLogger(), **options)
    print(f"http://127.0.0.1:{sockets['proxy'].getsockname()[1]}", flush=True)
    eventlet.tpool.execute(sys.stdin.read)


def save_ring(path: Path, port: int) -> None:
    """Say that everything lies once on the one disk."""
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
    builder.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "disk"})
    builder.rebalance(seed=0)
    builder.get_ring().save(str(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
