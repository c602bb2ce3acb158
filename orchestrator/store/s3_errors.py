"""Explain what boto3 raises: what failed, where, and which variable of the environment to mend."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    EndpointResolutionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    SSOError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from orchestrator.store.base import NotFound, StoreError
from orchestrator.store.passwords import without_passwords

# Errors of an answer that breaks off. The last is urllib3's: botocore lets it through when the body
# of an error response breaks off.
BROKEN = (
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    HTTPError,
)
FAILED = (ClientError, BotoCoreError, Boto3Error, HTTPError, ResponseParserError)
ABSENT = {"404", "NoSuchKey", "NotFound"}
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
REFUSED = {
    "400",
    "401",
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
OTHER_REGION = "set AWS_DEFAULT_REGION to the bucket's region"
OTHER_TIME = "set this machine's clock (NTP)"
LATER = "wait a while, then run the same command again"
# What to do about an answer of the server's, by its error code.
ADVICE_BY_CODE = {
    "AuthorizationHeaderMalformed": OTHER_REGION,
    "IllegalLocationConstraintException": OTHER_REGION,
    "PermanentRedirect": OTHER_REGION,
    "RequestInTheFuture": OTHER_TIME,
    "RequestTimeTooSkewed": OTHER_TIME,
    "InternalError": LATER,
    "RequestTimeout": LATER,
    "ServiceUnavailable": LATER,
    "SlowDown": LATER,
    "ThrottlingException": LATER,
}
# Statuses by which servers refuse a request whose conditions they do not know.
UNCONDITIONAL = {400, 501}
# What boto3 raises when a server's address is none.
NO_ADDRESS = (EndpointResolutionError, ValueError)
# What it raises otherwise, and what to do. The first row that applies counts.
ADVICE = (
    (
        NoCredentialsError,
        "no credentials were found; "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    (
        (SSOError, SSOTokenLoadError, UnauthorizedSSOTokenError),
        "{error}; run aws sso login, or correct AWS_PROFILE",
    ),
    (
        CredentialRetrievalError,
        "{error}: its command gave no credentials; correct it, or AWS_PROFILE",
    ),
    (
        ProfileNotFound,
        "{error}; correct AWS_PROFILE, or the file that AWS_CONFIG_FILE names",
    ),
    (
        ConfigParseError,
        "{error}; correct that file, or AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE that "
        "names it",
    ),
    (ValueError, "{error}; correct AWS_DEFAULT_REGION"),
    (
        ProxyConnectionError,
        "{error}; correct HTTP_PROXY and HTTPS_PROXY, or add the server to NO_PROXY",
    ),
    (
        SSLError,
        "the connection cannot be trusted ({error}); set AWS_CA_BUNDLE to the certificate "
        "of the server's authority, or correct {endpoint} (http or https, port)",
    ),
    (
        (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError, ConnectionClosedError),
        "the server does not answer ({error}); check {endpoint} and the network",
    ),
    (ResponseParserError, "what answers is no S3 server; correct {endpoint}"),
    # A value within the request, or the address of a proxy, cannot be used.
    (
        HTTPClientError,
        "{error}; check HTTP_PROXY and HTTPS_PROXY",
    ),
)


class TakenError(Exception):
    """Another process wrote the object first."""


class NoConditionError(StoreError):
    """The server refused a request with a condition, perhaps because of the condition."""


@contextlib.contextmanager
def explained(action: str, key: str, uri: str, bucket: str) -> Iterator[None]:
    """Turn boto3's errors into the store's, with the server's own words in brackets."""
    try:
        yield
    except FAILED as error:
        code = error_code(error)
        if code in ABSENT:
            raise NotFound(key, uri) from error
        if code in TAKEN:
            raise TakenError(key) from error
        kind = NoConditionError if http_status(error) in UNCONDITIONAL else StoreError
        why = advice(error, bucket)
        raise kind(f"cannot {action} {key!r} in the store {uri}: {why}") from error


def error_code(error: BaseException) -> str:
    """Return the server's error code from the chain of errors, or "" if no server answered."""
    answer = _answer(error)
    return str(answer.get("Error", {}).get("Code", "")) if answer else ""


def advice(error: Exception, bucket: str) -> str:
    """Return why a request failed and what to do about it, without passwords."""
    code = error_code(error)
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}; create it, or correct the store's URI"
    told = without_passwords(" ".join(str(error).split())).rstrip(".")
    if code in ADVICE_BY_CODE:
        return f"{told}; {ADVICE_BY_CODE[code]}"
    if code in REFUSED or (code and http_status(error) in (401, 403)):
        return (
            f"the server refused it ({error}); check AWS_ACCESS_KEY_ID or AWS_PROFILE, "
            "whether its credentials have expired, and the bucket's policy"
        )
    if isinstance(error, ParamValidationError) and "bucket name" in str(error):
        return f"{bucket!r} is no name of a bucket; correct the store's URI"
    address = endpoint()
    if address and isinstance(error, NO_ADDRESS) and not isinstance(error, InvalidRegionError):
        return (
            f"{address.rpartition('@')[2]} is not the address of a server; {endpoint_variable()} "
            "must be like http://host:9000 or https://host"
        )
    if code == "NoSuchKey":
        return f"{told}; correct {endpoint_variable()}, which names a server and no bucket"
    if "Invalid header value" in told:  # it may be a secret
        return (
            "a value that is sent has a line's end; check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN"
        )
    for kinds, words in ADVICE:
        if isinstance(error, kinds):
            return words.format(error=told, endpoint=endpoint_variable())
    return told


def endpoint() -> str | None:
    """Return the address of the S3 server that the environment names."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def endpoint_variable() -> str:
    """Return the name of the variable that decides where the server is."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
    if os.environ.get("AWS_ENDPOINT_URL_S3"):
        return "AWS_ENDPOINT_URL_S3"
    if endpoint() or not os.environ.get("AWS_CONFIG_FILE"):
        return "AWS_ENDPOINT_URL"
    return "AWS_ENDPOINT_URL, or endpoint_url in the file of AWS_CONFIG_FILE,"


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status of the server's answer, None if none answered."""
    answer = _answer(error)
    return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if answer else None


def _answer(error: BaseException) -> dict[str, Any] | None:
    """Return the server's answer from the chain of errors, None if no server answered."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ClientError):
        found = found.__context__
    return dict(found.response) if found else None
