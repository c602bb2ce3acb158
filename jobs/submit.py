"""Submit a job to the cluster that RAY_API_SERVER_ADDRESS names: `python -m jobs.submit -- python -m jobs.campaign run NAME`.

It prints the `ray job submit` line that does it, and runs it. The code of this folder goes along, but for what .gitignore and
.rayignore name; secrets do not: a cluster's machines have their own. Submitting the same command again is harmless: what is
published is used, and what another job is training is waited for.
"""

import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import tyro

from jobs.errors import user_errors
from orchestrator.records.provenance import COMMIT, DIRTY, code_version
from training.config import InputError

STOP_SECONDS = "60"  # that a job has to end well when it is stopped; Ray's own 3 are too few to close MLflow's runs


def command_line(entrypoint: Sequence[str], id: str, wait: bool) -> list[str]:
    """The `ray job submit` line."""
    version = zip((COMMIT, DIRTY), code_version(Path.cwd()), strict=True)  # .git stays at home
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS} | {
        name: value for name, value in version if value
    }
    environment = {"env_vars": variables}
    options = [
        "--working-dir",
        ".",
        "--submission-id",
        id,
        "--runtime-env-json",
        json.dumps(environment),
    ]
    return ["ray", "job", "submit", *options, *([] if wait else ["--no-wait"]), "--", *entrypoint]


@user_errors()
def submit(
    entrypoint: tyro.conf.Positional[tuple[str, ...]],
    submission_id: str | None = None,
    wait: bool = True,
    dry_run: bool = False,
) -> None:
    """Submit a job and show what it prints.

    Args:
        entrypoint: What to run there, after `--`.
        submission_id: What the job is called; by default what it runs, and some letters.
        wait: Show what it prints, until it ends; Ctrl-C ends the showing, not the job.
        dry_run: Only print the line.
    """
    if not entrypoint:
        raise InputError(
            "say what to run: python -m jobs.submit -- python -m jobs.campaign run digits_wilson_alpha"
        )
    if not Path("jobs", "submit.py").exists():
        raise InputError(
            f"the code that goes along is that of {Path.cwd()}, which has no jobs/: submit from the repository's root"
        )
    name = next(
        (word.removeprefix("jobs.") for word in entrypoint if word.startswith("jobs.")), "job"
    )
    id = submission_id or f"{name}-{uuid.uuid4().hex[:8]}"
    line = command_line(entrypoint, id, wait)
    print(shlex.join(line), flush=True)
    if dry_run:
        return
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise InputError(
            "RAY_API_SERVER_ADDRESS names no cluster: source stepchain-cluster/environment for the one that `make cluster` "
            "starts, or set it to a dashboard's address"
        )
    print(f"to see it: {address}/#/jobs/{id}", f"its log: ray job logs --follow {id}", sep="\n")
    print(f"to stop it: ray job stop {id}", flush=True)
    raise SystemExit(
        subprocess.run([Path(sys.executable).with_name(line[0]), *line[1:]], check=False).returncode
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: our own options stand before `--`, the job's after it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    ours, _, theirs = (
        (given, "", [])
        if "--" not in given
        else (given[: given.index("--")], "--", given[given.index("--") + 1 :])
    )
    tyro.cli(
        submit,
        prog="python -m jobs.submit",
        description=__doc__,
        args=[*ours, *(["--", *theirs] if theirs else [])],
    )


if __name__ == "__main__":
    main()
