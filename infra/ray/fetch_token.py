"""Write a secret of AWS Secrets Manager to a file: `python -m infra.ray.fetch_token NAME FILE`.

Every machine that `ray up` starts runs this with the rights of its instance profile. The secret
passes through no command line, no environment and no log.
"""

import os
import sys
from pathlib import Path

import boto3


def fetch(name: str, path: Path) -> None:
    """Write the secret of this name to `path`, readable by its owner only."""
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # An existing file may be readable by others.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret.strip())


if __name__ == "__main__":
    fetch(sys.argv[1], Path(sys.argv[2]).expanduser())
