"""Write the secrets of `infra/compose.yaml`, once: `python -m infra.local.secrets`.

The files in infra/.secrets are readable by their owner only.
"""

import secrets
import shlex
from pathlib import Path

from infra.local.settings import write_private

FOLDER = Path(__file__).parents[1] / ".secrets"


def main(folder: Path = FOLDER) -> None:
    """Write the secrets unless they exist, because databases remember them."""
    if folder.exists():
        print(f"{folder} exists; to start over, delete it and the volumes")
        return
    folder.mkdir(mode=0o700, parents=True)
    database, admin = secrets.token_hex(24), secrets.token_hex(24)
    keys = {"AWS_ACCESS_KEY_ID": "stepchain:jobs", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24)}
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": admin}
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    server = {
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+pg8000://mlflow:{database}@postgres:5432/mlflow",
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }
    client = {"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265"}
    write_variables(folder / "s3.env", keys)
    write_variables(folder / "mlflow.env", keys | server)
    write_variables(folder / "ray.env", keys | user | token)
    write_private(folder / "postgres", database)
    write_variables(folder / "grafana.env", {"GF_SECURITY_ADMIN_PASSWORD": secrets.token_hex(24)})
    shown = client | token | user
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in shown.items())
    write_private(folder / "client.env", "".join(exports))
    print(f"wrote {folder}")


def write_variables(path: Path, values: dict[str, str]) -> None:
    """Write variables as Docker Compose reads them: without quotes."""
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))


if __name__ == "__main__":
    main()
