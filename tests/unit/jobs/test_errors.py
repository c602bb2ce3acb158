import errno
import os
import pickle
import pty
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from jobs.errors import user_errors
from orchestrator.datasets.catalog import UnknownDataset
from orchestrator.records.schema import StepFailed
from orchestrator.store.base import NotFound
from orchestrator.store.open import open_store
from tests.support.paths import ROOT
from training.config import InputError, Optimization
from training.data.source import BadData
from training.scenario import Scenario, split_groups


def not_found() -> None:
    raise NotFound("a", "/store")


def unknown_dataset() -> None:
    raise UnknownDataset("there is no dataset 'x'")


def bad_data() -> None:
    raise BadData("the mask is too small")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (not_found, "there is no object 'a' in the store /store"),
        (unknown_dataset, "there is no dataset 'x'"),
        (bad_data, "the mask is too small"),
        (lambda: split_groups("15_1", ["a"]), "split '15_1' is not of the form A-B"),
        (lambda: open_store("s3://"), "'s3://' names no bucket"),
        (
            lambda: Scenario(dataset="x", groups=(("a",), ("a",))),
            "class 'a' stands in the groups twice",
        ),
        (
            lambda: Optimization.model_validate({"epochs": "ten"}),
            "epochs: Input should be a valid number",
        ),
    ],
)
def test_what_a_person_did_wrong_is_one_line_and_exit_code_2(
    fail, message: str, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as caught, user_errors():
        fail()
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_step_that_failed_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught, user_errors():
        raise StepFailed("step 1 failed (details: there)")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: step 1 failed (details: there)\n"


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_job_that_is_stopped_ends_with_its_signal_and_says_how_to_go_on(
    number: int, code: int, capsys: pytest.CaptureFixture
):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    ended = []

    class Job:
        def close(self) -> None:
            ended.append(True)

    with (
        pytest.raises(SystemExit) as caught,
        user_errors(),
        closing(Job()),
    ):
        os.kill(os.getpid(), number)
    assert caught.value.code == code
    assert ended, "what a job does when it ends, such as to give its lease back, was not done"
    assert "the same command resumes" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_job_whose_terminal_is_closed_ends_well(tmp_path: Path):
    # What it does at its end prints, too, and prints before it does what matters.
    code = f"""
import pathlib, time
from jobs.errors import user_errors

with user_errors():
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("closing", flush=True)
        pathlib.Path({str(tmp_path / "closed")!r}).touch()
"""
    job, terminal = pty.fork()
    if not job:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert b"working" in os.read(terminal, 100)
    os.close(terminal)
    os.kill(job, signal.SIGHUP)  # the shell sends another one
    _, status = os.waitpid(job, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert (tmp_path / "closed").exists()


def test_under_nohup_a_job_goes_on():
    code = (
        "import os, signal\nfrom jobs.errors import user_errors\n"
        "with user_errors():\n os.kill(os.getpid(), signal.SIGHUP)\n print('went on')"
    )
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_closed_stdout_is_no_error():
    code = "from jobs.errors import user_errors\nwith user_errors():\n print('x')"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_while_garbage_is_collected_is_not_lost(
    number: int, capfd: pytest.CaptureFixture
):
    class Garbage:
        def __del__(self) -> None:
            signal.raise_signal(number)

    @user_errors()
    def job() -> None:
        Garbage()
        time.sleep(20)

    begun = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        job()
    assert caught.value.code == 128 + number
    assert time.monotonic() - begun < 10
    assert "Traceback" not in capfd.readouterr().err


def raised(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (raised(errno.ENOSPC), ("a disk is full", "TMPDIR", "STEPCHAIN_CACHE", "MB free")),
        (raised(errno.EDQUOT, "/big/file"), ("at /big/file", "make room")),
        (raised(errno.EACCES, "/locked"), ("cannot use /locked (Permission denied)",)),
        (raised(errno.EROFS, "/image"), ("cannot use /image (Read-only file system)",)),
        (raised(errno.EISDIR, "/a"), ("cannot write /a (Is a directory): move away what",)),
        (raised(errno.ENOTDIR, "/a/b"), ("cannot write /a/b (Not a directory)",)),
        (raised(errno.EEXIST, "/c"), ("cannot write /c (File exists)",)),
        (raised(errno.EMFILE), ("Too many open files",)),
    ],
)
def test_what_the_machine_refuses_is_one_line(
    error: OSError, words: tuple[str, ...], capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as caught, user_errors():
        raise error
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for each in words:
        assert each in err


@pytest.mark.parametrize(
    "last",
    [
        "",
        "raise SystemExit(0)",
        "print('x' * 100_000)",
        "from jobs.console import open_console; open_console().print('x' * 100_000)",
    ],
)
def test_a_reader_that_leaves_is_no_error(last: str):
    code = f"from jobs.errors import user_errors\nwith user_errors():\n print('x')\n {last}"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == (0 if "Exit" in last else 141)


def test_a_broken_connection_keeps_its_traceback():
    with pytest.raises(BrokenPipeError), user_errors():
        raise raised(errno.EPIPE)


def refuse_elsewhere() -> None:
    raise ValueError("nothing of ours says that")


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        (refuse_elsewhere, ValueError),
        (lambda: split_groups(None, []), TypeError),  # type: ignore[arg-type]
        (lambda: {}["x"], KeyError),
        (lambda: 1 / 0, ZeroDivisionError),
        (lambda: Path("/nothing/here").read_text(), FileNotFoundError),
    ],
)
def test_an_unexpected_error_keeps_its_traceback(fail, kind: type[Exception]):
    with pytest.raises(kind), user_errors():
        fail()


@pytest.mark.parametrize(
    "error",
    [NotFound("a", "/store"), UnknownDataset("b"), BadData("c"), InputError("d"), StepFailed("e")],
)
def test_errors_travel_between_processes(error: Exception):
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)


def test_as_a_decorator_it_leaves_no_traceback_on_the_screen():
    code = (
        "from jobs.errors import user_errors\nfrom orchestrator.store.open import open_store\n"
        "@user_errors()\ndef job():\n    open_store('gs://x')\njob()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'gs://x' is not a store")
    assert done.stderr.count("\n") == 1


def test_an_interruption_inside_code_made_from_a_text_keeps_its_exit_code(tmp_path: Path):
    """`python -m` would end by SIGINT: it remembers that an interruption left such code."""
    (tmp_path / "stopped.py").write_text(
        "import os, signal\n"
        "from jobs.errors import user_errors\n"
        "with user_errors():\n"
        "    exec('os.kill(os.getpid(), signal.SIGTERM)')\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
