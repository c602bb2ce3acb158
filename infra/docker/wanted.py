"""Print the requirements of an image: those of pyproject.toml, and those of its servers."""

import tomllib
from pathlib import Path

# MLflow's basic-auth and PostgreSQL driver, the build, and the S3 server of a laptop.
SERVERS = ("flask-wtf", "pg8000", "setuptools", "swift")

if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print(*project["dependencies"], *SERVERS, sep="\n")
