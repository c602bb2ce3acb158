"""A server of S3 that is not there, not what it seems, or that lacks what others have."""

import logging
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease
from orchestrator.store.open import default_store, open_store
from orchestrator.store.retries import Retries
from orchestrator.store.s3 import S3Store
from tests.support.odd_servers import answering
from tests.support.proxy import Proxy
from tests.support.servers import write_certificate

KNOWS_NO_CONDITIONS = [(501, "NotImplemented"), (400, "InvalidArgument"), (400, "BadRequest")]


@pytest.fixture
def proxy(moto_bucket: str, moto_url: str, s3_environment: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run a proxy between the client and the server."""
    with Proxy(moto_url) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        s3_environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy
        proxy.shutdown()


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return our own warnings, without what the server in memory logs of its requests."""
    return [record for record in caplog.records if record.name == "orchestrator.store.s3"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [("127.0.0.1:9000", "127.0.0.1:9000"), ("http://", "http://"), ("localhost", "localhost")],
)
def test_an_address_without_scheme_or_host_names_its_variable(
    s3_environment: pytest.MonkeyPatch, address: str, shown: str
) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", address)
    sentence = f"{re.escape(shown)} is not the address of a server; AWS_ENDPOINT_URL must be like"
    with pytest.raises(StoreError, match=sentence):
        open_store("s3://bucket/p").check_answers()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_ENDPOINT_URL": "http://host:port"}, "http://host:port is not the address of a serv"),
        ({"AWS_ENDPOINT_URL": "http://ada:secret@h ost"}, "h ost is not the address of a server;"),
        ({"AWS_ENDPOINT_URL": "ada:secret@host:9000"}, "host:9000 is not the address of a server;"),
        ({"AWS_ENDPOINT_URL": "http://ada:secret@127.0.0.1:9"}, "does not answer .*//127.0.0.1:9/"),
        ({"AWS_PROFILE": "nope"}, r"\(nope\) could not be found; correct AWS_PROFILE"),
        ({"AWS_DEFAULT_REGION": "no where"}, "supported format; correct AWS_DEFAULT_REGION"),
        ({"AWS_DEFAULT_REGION": ""}, "s3..amazonaws.com; correct AWS_DEFAULT_REGION"),
        (
            {"AWS_CONFIG_FILE": __file__},
            "test_s3.py; correct that file, or AWS_CONFIG_FILE or AWS_",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.2:9", "HTTP_PROXY": "http://a:secret@127.0.0.1:9"},
            "correct HTTP_PROXY",
        ),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.2:9", "HTTP_PROXY": "no proxy"}, "check HTTP_PROXY"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence_without_passwords(
    s3_environment: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        s3_environment.delenv(name, raising=False)
    for name, value in variables.items():
        s3_environment.setenv(name, value)
    store = S3Store("bucket", "p", Retries(first_answer_seconds=0.5))
    with pytest.raises(StoreError, match=sentence) as caught:
        store.check_answers()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_is_no_bucket_is_one_sentence(s3_environment: pytest.MonkeyPatch) -> None:
    sentence = "'lab:80' is no name of a bucket; correct the store's URI"
    with pytest.raises(StoreError, match=sentence):
        open_store("s3://lab:80/p").check_answers()


@pytest.mark.s3
def test_a_server_that_has_the_bucket_passes_and_one_without_does_not(moto_bucket: str) -> None:
    open_store(f"s3://{moto_bucket}/p").check_answers()
    with pytest.raises(StoreError, match="there is no bucket 'absent-bucket'; create it"):
        open_store("s3://absent-bucket/p").check_answers()


def s3_error(code: str) -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Made up</Message></Error>"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({}, "no S3 server.*; correct AWS_ENDPOINT_URL_S3"),
        ({"status": 404}, r"no S3 server.*\(HTTP 404\); correct AWS_ENDPOINT_URL_S3"),
        ({"status": 403, "body": "<html>403</html>"}, r"no S3 server.*\(HTTP 403\); correct AWS"),
        ({"status": 302, "to": "/login"}, r"no S3 server.*\(a redirect\); correct AWS_ENDPOINT"),
        ({"status": 307, "to": "/login"}, r"no S3 server.*\(a redirect\); correct AWS_ENDPOINT"),
        ({"trickles": True}, "does not answer.*; check AWS_ENDPOINT_URL_S3 and the network"),
        ({"status": 400, "body": s3_error("AuthorizationHeaderMalformed")}, "AWS_DEFAULT_REGION"),
        ({"status": 403, "body": s3_error("RequestTimeTooSkewed")}, "set this machine's clock"),
        ({"status": 503, "body": s3_error("SlowDown")}, "wait a while, then run the same command"),
        ({"status": 403, "body": s3_error("AllAccessDisabled")}, "check AWS_ACCESS_KEY_ID"),
        ({"status": 404, "body": s3_error("NoSuchKey")}, "names a server and no bucket"),
    ],
)
def test_another_answer_than_a_buckets_is_one_sentence(
    s3_environment: pytest.MonkeyPatch, answer: dict[str, Any], sentence: str
) -> None:
    with answering(**answer) as url:
        s3_environment.setenv("AWS_ENDPOINT_URL_S3", url)
        store = S3Store("bucket", "p", Retries(first_answer_seconds=0.5))
        began = time.monotonic()
        with pytest.raises(StoreError, match=sentence) as caught:
            store.check_answers()
        assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)


def test_credentials_that_cannot_be_read_are_one_sentence(
    s3_environment: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        s3_environment.delenv(name)
    s3_environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/x")
    s3_environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/file")
    with pytest.raises(StoreError, match="check AWS_PROFILE, and the files that AWS_CONFIG_FILE"):
        open_store("s3://bucket/p").check_answers()


def test_a_token_with_a_lines_end_is_not_shown(s3_environment: pytest.MonkeyPatch) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_environment.setenv("AWS_SESSION_TOKEN", "secret\ntoken")
    with pytest.raises(StoreError, match="a line's end; check AWS_ACCESS_KEY_ID and AWS_SESSION"):
        open_store("s3://bucket/p").check_answers()


def test_a_mute_server_is_given_up_soon(s3_environment: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        s3_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        began = time.monotonic()
        store = S3Store("bucket", "p", Retries(first_answer_seconds=0.5))
        with pytest.raises(StoreError, match=r"does not answer .*; check AWS_ENDPOINT_URL"):
            store.check_answers()
        assert time.monotonic() - began < 5
    usual = Retries()
    pauses = 2
    waits = max(usual.first_answer_seconds, usual.s3_connect_seconds)
    assert usual.first_answer_attempts * waits + pauses < 15


def test_a_mute_server_is_not_asked_again_when_boto3_has_given_it_up(
    s3_environment: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        s3_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        store = S3Store("bucket", "p", Retries(s3_read_seconds=0.2, s3_attempts=3))
        with pytest.raises(StoreError, match="does not answer"):
            store.read("a")
        asked = 0
        while select.select([mute], [], [], 0)[0]:
            mute.accept()[0].close()
            asked += 1
        assert asked == 3


@pytest.mark.s3
@pytest.mark.parametrize("answer", KNOWS_NO_CONDITIONS)
def test_a_server_without_conditions_is_written_to_without(
    proxy: Proxy,
    moto_bucket: str,
    answer: tuple[int, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.condition = answer
    store = open_store(f"s3://{moto_bucket}/p")
    assert store.write("a", b"one", only_if_absent=True)
    assert not store.write("a", b"two", only_if_absent=True)
    assert store.read("a") == b"one"
    assert store.write("b", b"one", only_if_absent=True)
    (warning,) = warnings(caplog)
    assert "knows no conditional writes" in warning.message
    assert answer[1] in warning.message
    lines = [line.lower() for head in proxy.heads for line in head]
    assert sum(line.startswith(b"if-none-match") for line in lines) == 1


@pytest.mark.s3
def test_a_write_that_is_refused_for_another_reason_says_that_reason(
    proxy: Proxy, moto_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"s3://{moto_bucket}/p")
    proxy.choose = lambda method, path: "expired" if method == "PUT" else None
    with pytest.raises(StoreError, match="whether its credentials have expired"):
        store.write("a", b"one", only_if_absent=True)
    proxy.choose = lambda method, path: None
    assert store.write("a", b"one", only_if_absent=True)
    assert not warnings(caplog)


class Late(S3Store):
    """A store whose first look comes too early to see what another process is about to write."""

    def exists(self, key: str) -> bool:
        super().exists(key)
        return False


@pytest.mark.s3
def test_of_two_that_take_a_lease_at_once_without_conditions_one_learns_that_it_lost(
    proxy: Proxy, moto_bucket: str
) -> None:
    proxy.condition = 501, "NotImplemented"
    early, late = (
        Lease(Late(moto_bucket, "p"), "lease", owner, period=60) for owner in ("early", "late")
    )
    assert early.acquire()
    assert late.acquire()
    assert late.is_mine()
    assert not early.is_mine()


@pytest.fixture
def tls(
    swift_bucket: str, swift_url: str, s3_environment: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Proxy]:
    """Run a real S3 server behind TLS with a certificate that signed itself."""
    certificate = tmp_path / "certificate.pem"
    write_certificate(certificate)
    with Proxy(swift_url, certificate) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        s3_environment.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3_environment.setenv("AWS_CA_BUNDLE", str(certificate))
        yield proxy
        proxy.shutdown()


@pytest.fixture
def tls_store(tls: Proxy, swift_bucket: str) -> Store:
    return open_store(f"s3://{swift_bucket}/p")


@pytest.mark.s3real
def test_a_store_over_tls_sends_plain_bodies(tls: Proxy, tls_store: Store, tmp_path: Path) -> None:
    tls_store.check_answers()
    assert tls_store.write("a", b"one", only_if_absent=True)
    assert not tls_store.write("a", b"two", only_if_absent=True)
    large, copy = tmp_path / "large", tmp_path / "copy"
    large.write_bytes(bytes(1 << 20))
    tls_store.upload(large, "large")
    tls_store.download("large", copy)
    assert copy.read_bytes() == large.read_bytes()
    assert [(entry.key, entry.bytes) for entry in tls_store.entries()] == [
        ("a", 3),
        ("large", 1 << 20),
    ]
    lines = [line.lower() for head in tls.heads for line in head]
    assert any(line.startswith(b"put ") for line in lines)
    assert not any(b"aws-chunked" in line or b"x-amz-trailer" in line for line in lines)


@pytest.mark.s3real
@pytest.mark.parametrize("bundle", ["", "no/such/bundle.pem"])
def test_a_certificate_that_is_not_trusted_names_its_variable(
    tls: Proxy, tls_store: Store, s3_environment: pytest.MonkeyPatch, bundle: str
) -> None:
    s3_environment.setenv("AWS_CA_BUNDLE", bundle)
    if not bundle:
        s3_environment.delenv("AWS_CA_BUNDLE")
    with pytest.raises(StoreError, match=r"cannot use the store s3://.*AWS_CA_BUNDLE"):
        tls_store.check_answers()


@pytest.mark.s3real
def test_tls_where_none_is_spoken_names_the_address(
    swift_bucket: str, swift_url: str, s3_environment: pytest.MonkeyPatch
) -> None:
    s3_environment.setenv("AWS_ENDPOINT_URL", swift_url.replace("http:", "https:"))
    with pytest.raises(StoreError, match=r"correct AWS_ENDPOINT_URL \(http or https, port\)"):
        open_store(f"s3://{swift_bucket}/p").check_answers()


@pytest.mark.parametrize("value", ["", "s3://bucket/p"])
def test_an_empty_variable_names_no_store(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STEPCHAIN_STORE", value)
    assert default_store() == (value or "./stepchain-store")


@pytest.mark.parametrize("uri", ["s3://bucket/run#1", "s3://bucket/run#"])
def test_a_prefix_that_would_be_cut_off_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match="a prefix cannot hold #"):
        open_store(uri)
