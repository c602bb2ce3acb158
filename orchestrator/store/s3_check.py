"""Look whether an S3 server answers as one, before a job spends anything."""

from functools import partial
from typing import Any

from orchestrator.store.deadline import within
from orchestrator.store.passwords import without_passwords
from orchestrator.store.s3_errors import FAILED, advice, endpoint_variable, error_code, http_status


def problem_of_server(client: Any, bucket: str, root: str, seconds: float) -> str:
    """Return in words why a bucket cannot be used and what to do, or "".

    Args:
        client: Of boto3, with little patience.
        bucket: The bucket.
        root: What the names of the store's objects begin with.
        seconds: How long the whole answer may take.
    """
    try:
        return within(seconds, partial(_problem, client, bucket, root))
    except TimeoutError as error:
        return (
            f"the server, or what AWS_PROFILE names for credentials, does not answer ({error}); "
            f"check {endpoint_variable()} and the network"
        )


def _problem(client: Any, bucket: str, root: str) -> str:
    try:
        found = client.list_objects_v2(Bucket=bucket, Prefix=root, MaxKeys=1)
    except FAILED as error:
        code = error_code(error)
        # These keys may read or write all the same.
        if code == "AccessDenied":
            return ""
        # Errors of S3 have names, and those of other servers have only their status.
        status = http_status(error)
        stranger = status is not None and (not code or code.isdigit())
        return _stranger(client, f"HTTP {status}") if stranger else advice(error, bucket)
    except RecursionError:
        # boto3 asks a server that redirects for the bucket's region, is redirected, and asks again.
        return _stranger(client, "a redirect")
    except (OSError, EOFError) as error:
        # boto3 reads credentials at the first request.
        return (
            f"its credentials cannot be read ({error}); check AWS_PROFILE, and the files that "
            "AWS_CONFIG_FILE and AWS_WEB_IDENTITY_TOKEN_FILE name"
        )
    return "" if "Name" in found else _stranger(client, "another answer than S3's")


def _stranger(client: Any, answer: str) -> str:
    """Return that something else answers where a server of S3 should be."""
    address = without_passwords(client.meta.endpoint_url)
    return (
        f"at {address} is no S3 server, or none that is ready ({answer}); "
        f"correct {endpoint_variable()}"
    )
