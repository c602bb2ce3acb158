"""Weigh the code that a submission carries, before it is sent.

Ray's server takes a package of at most 100 MiB and refuses a larger one only after it arrived.
"""

from collections import Counter
from pathlib import Path

from training.config import InputError

MEBIBYTE = 1 << 20
MOST = 100 * MEBIBYTE  # the dashboard answers 413 to a larger request
NAMED = 5  # folders that a refusal names


def check_package(folder: Path) -> None:
    """Raise InputError if Ray would not take what .gitignore and .rayignore leave of a folder.

    The files are weighed as they are. Photos, the usual cause, do not shrink when Ray packs them.
    """
    sizes = weigh(folder)
    total = sum(sizes.values())
    if total < MOST:
        return
    largest = ", ".join(
        f"{name} ({size / MEBIBYTE:,.0f} MiB)" for name, size in sizes.most_common(NAMED)
    )
    raise InputError(
        f"the code that goes along has {total / MEBIBYTE:,.0f} MiB, and Ray takes "
        f"{MOST / MEBIBYTE:,.0f}: name what the job does not need in "
        f"{folder / '.rayignore'}; the largest are {largest}. Photos reach a cluster through the "
        "store (jobs.ingest)"
    )


def weigh(folder: Path) -> Counter[str]:
    """Return the bytes that Ray would pack, by folder (without its folders) or file at the top."""
    from ray._private.runtime_env.packaging import _dir_travel  # pyright: ignore[reportPrivateUsage]

    sizes: Counter[str] = Counter()

    def count(path: Path) -> None:
        if path.is_file():
            above = path.parent.relative_to(folder).as_posix()
            sizes[path.name if above == "." else f"{above}/"] += path.stat().st_size

    _dir_travel(folder, [], count, include_gitignore=True)
    return sizes
