"""Write requirements.lock: one `name==version` for each package of pyproject.toml and its extras.

Run it with the environment's own Python after changing a requirement (`make lock`). The lock holds
no URL and no hash, so that the same file finds torch's CPU build where one is offered and its CUDA
build elsewhere. Pip finds what the CUDA build needs besides (nvidia-*, cuda-*, triton).
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ACCELERATOR_ONLY = ("cuda-", "nvidia-", "triton")
ROOT = Path(__file__).parents[1]


def closure(requirements: list[str]) -> dict[str, str]:
    """Return the installed version of each requirement and of all that it needs here."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra_of_parent = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of_parent}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(ACCELERATOR_ONLY):
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            wanted = repr(str(requirement))
            sys.exit(f"{requirement} is not installed: run pip install {wanted}, then make lock")
        if not requirement.specifier.contains(installed.version, prereleases=True):
            sys.exit(
                f"{requirement} is required and {installed.version} is installed: "
                "upgrade it, then make lock"
            )
        versions[name] = installed.version.partition("+")[0]
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [(Requirement(text), extra) for text in installed.requires or []]
    return versions


def main() -> None:
    """Write the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = chain.from_iterable(project["project"]["optional-dependencies"].values())
    tools = project["dependency-groups"]["dev"]
    versions = closure([*project["project"]["dependencies"], *extras, *tools])
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    (ROOT / "requirements.lock").write_text("".join(lines))
    print(f"requirements.lock: {len(lines)} packages")


if __name__ == "__main__":
    main()
