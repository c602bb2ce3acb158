"""Print what an image needs: what pyproject.toml requires at run time, and what its servers need besides."""

import tomllib
from pathlib import Path

SERVERS = (
    "flask-wtf",
    "pg8000",
    "setuptools",
    "swift",
)  # MLflow's basic-auth and PostgreSQL, the build, a laptop's S3

if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print(*project["dependencies"], *SERVERS, sep="\n")
