"""Run a real S3 server, OpenStack Swift, on one disk: `python -m infra.local.swift FOLDER`.

Its user is AWS_ACCESS_KEY_ID (of the form account:user) with AWS_SECRET_ACCESS_KEY. It makes
missing buckets and prints its URL once it answers. It ends on SIGTERM, or with its standard input
on request. Unlike an S3 server in memory it checks signatures and checksums and writes to disk.
It is eventually consistent, so of several conditional writes at once more than one may win.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from swift.common.utils import SWIFT_CONF_FILE, monkey_patch, set_swift_dir

# All servers are green threads of this process, so this comes before any other import.
monkey_patch()

import boto3  # noqa: E402
import eventlet  # noqa: E402
import eventlet.tpool  # noqa: E402
import eventlet.wsgi  # noqa: E402
from botocore.config import Config  # noqa: E402
from swift.common.http_protocol import SwiftHttpProtocol  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.utils import NullLogger  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

KINDS = ("account", "container", "object")
PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth "
    "copy slo dlo symlink proxy-server"
)
# Settings of a middleware, by its name.
SETTINGS = {
    "s3api": (
        "s3_acl = false\nlocation = us-east-1\n"
        "allow_multipart_uploads = true\nmax_multi_delete_objects = 1000\n"
    ),
    "tempauth": "user_{user} = {secret} .admin\n",
    "proxy-server": "allow_account_management = true\naccount_autocreate = true\n",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the objects below the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 in a container"
    )
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument(
        "--bucket", action="append", default=[], help="made unless it is there; may be given again"
    )
    parser.add_argument(
        "--end-with-input", action="store_true", help="end when standard input does"
    )
    options = parser.parse_args(arguments)
    # The settings of the proxy hold the secret.
    os.umask(0o077)
    folder = options.folder.resolve()
    (folder / "disk").mkdir(parents=True, exist_ok=True)
    public = eventlet.listen((options.host, options.port))
    serve(folder, public, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    url = f"http://127.0.0.1:{public.getsockname()[1]}"
    make_buckets(url, options.bucket)
    print(url, flush=True)
    if options.end_with_input:
        eventlet.tpool.execute(sys.stdin.read)
    else:
        while True:
            eventlet.sleep(3600)


def serve(folder: Path, public: socket.socket, user: str, secret: str) -> None:
    """Start Swift's S3 proxy and the three servers behind it, as green threads."""
    sockets = {"proxy": public} | {kind: eventlet.listen(("127.0.0.1", 0)) for kind in KINDS}
    (folder / Path(SWIFT_CONF_FILE).name).write_text(
        "[swift-hash]\nswift_hash_path_suffix = stepchain\n\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    set_swift_dir(str(folder))
    common = (
        f"[DEFAULT]\nswift_dir = {folder}\ndevices = {folder}\n"
        "mount_check = false\nfallocate_reserve = 0\n"
    )
    for kind in KINDS:
        save_ring(folder / f"{kind}.ring.gz", sockets[kind].getsockname()[1])
        (folder / f"{kind}.conf").write_text(
            f"{common}\n[pipeline:main]\npipeline = {kind}-server\n\n"
            f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
    parts = [f"{common}\n[pipeline:main]\npipeline = {PIPELINE}\n"]
    for name in PIPELINE.split():
        kind, egg = ("app", "proxy") if name == "proxy-server" else ("filter", name)
        settings = SETTINGS.get(name, "").format(user=user.replace(":", "_"), secret=secret)
        parts.append(f"[{kind}:{name}]\nuse = egg:swift#{egg}\n{settings}")
    (folder / "proxy.conf").write_text("\n".join(parts))
    for kind, listening in sockets.items():
        # S3 answers with ETag, and eventlet would write Etag.
        options = {"protocol": SwiftHttpProtocol, "capitalize_response_headers": False}
        eventlet.spawn(
            eventlet.wsgi.server,
            listening,
            loadapp(str(folder / f"{kind}.conf")),
            NullLogger(),
            **options,
        )


def save_ring(path: Path, port: int) -> None:
    """Write the ring that puts everything once on the one disk."""
    builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
    builder.add_dev(
        {"region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "disk"}
    )
    builder.rebalance(seed=0)
    builder.get_ring().save(str(path))


def make_buckets(url: str, names: Sequence[str]) -> None:
    """Make missing buckets, as a client of the server."""
    path_style = Config(s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=path_style)
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in there:
            client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
