"""Submit a job to a cluster: `python -m jobs.submit -- python -m jobs.campaign run NAME`.

RAY_API_SERVER_ADDRESS names the cluster. The job prints the `ray job submit` line that it runs. The
code of the current folder goes along, except what .gitignore and .rayignore name. More than Ray
takes is refused before it is sent. An installed package sends no code, so submit from a checkout of
the repository. Secrets stay here, because a cluster's machines have their own. Submitting the same
command again is harmless: published steps are used, and steps that another job trains are waited
for.
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
from jobs.jobs_api import ADDRESS, check_takes_jobs
from orchestrator.cluster.package_size import check_package
from orchestrator.records.provenance import COMMIT, DIRTY, code_version
from orchestrator.store.passwords import without_passwords
from training.config import InputError

# Seconds that a stopped job gets to end well. Ray's own 3 are too few to close MLflow's runs.
STOP_SECONDS = "60"


def command_line(entrypoint: Sequence[str], id: str, wait: bool) -> list[str]:
    """Return the `ray job submit` line.

    Args:
        entrypoint: The command to run on the cluster.
        id: Name of the job.
        wait: Show the job's output until it ends.
    """
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": STOP_SECONDS}
    # .git does not travel with the code, so the job receives the code's version.
    for name, value in zip((COMMIT, DIRTY), code_version(Path.cwd()), strict=True):
        if value:
            variables[name] = value
    return [
        "ray",
        "job",
        "submit",
        "--working-dir",
        ".",
        "--submission-id",
        id,
        "--runtime-env-json",
        json.dumps({"env_vars": variables}),
        *([] if wait else ["--no-wait"]),
        "--",
        *entrypoint,
    ]


def submit(
    entrypoint: tyro.conf.Positional[tuple[str, ...]],
    submission_id: str | None = None,
    wait: bool = True,
    dry_run: bool = False,
) -> None:
    """Submit a job and show its output.

    Args:
        entrypoint: The command to run on the cluster, after `--`.
        submission_id: Name of the job; by default what it runs, and some letters.
        wait: Show the job's output until it ends; Ctrl-C ends the output, not the job.
        dry_run: Only print the line.
    """
    _check(entrypoint)
    check_package(Path.cwd())
    id = submission_id or f"{_job_name(entrypoint)}-{uuid.uuid4().hex[:8]}"
    line = command_line(entrypoint, id, wait)
    print(shlex.join(line), flush=True)
    if dry_run:
        return
    address = os.environ.get(ADDRESS)
    if not address:
        raise InputError(
            "RAY_API_SERVER_ADDRESS names no cluster: source stepchain-cluster/environment for the "
            "one that `make cluster` starts, or set it to a dashboard's address"
        )
    check_takes_jobs(address)
    print(f"to see it: {without_passwords(address)}/#/jobs/{id}")
    print(f"its log: ray job logs --follow {id}")
    print(f"to stop it: ray job stop {id}", flush=True)
    ray = Path(sys.executable).with_name(line[0])
    raise SystemExit(subprocess.run([ray, *line[1:]], check=False).returncode)


def _check(entrypoint: Sequence[str]) -> None:
    """Raise InputError unless there is a command, and code to send with it."""
    if not entrypoint:
        raise InputError(
            "say what to run: "
            "python -m jobs.submit -- python -m jobs.campaign run digits_wilson_alpha"
        )
    if not Path("jobs", "submit.py").exists():
        raise InputError(
            f"the code that goes along is that of {Path.cwd()}, which has no jobs/: "
            "submit from the root of a checkout of the repository"
        )


def _job_name(entrypoint: Sequence[str]) -> str:
    """Return the name of the job that the command runs."""
    for word in entrypoint:
        if word.startswith("jobs."):
            return word.removeprefix("jobs.")
    return "job"


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: our own options stand before `--`, the job's command after it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    # Without a command, a lone `--` would hide that it is missing.
    command = given[end:] if given[end + 1 :] else []
    tyro.cli(
        submit,
        prog="python -m jobs.submit",
        description=__doc__,
        args=[*given[:end], *command],
    )


if __name__ == "__main__":
    main()
