"""Run a job by its verb: `stepchain train ...` is `python -m jobs.train ...`."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module, metadata

from jobs.errors import user_errors

VERBS = {
    "train": "train a chain, or the steps of it that are not published yet",
    "campaign": "plan, run and watch many chains that share steps",
    "report": "show what is published: tables and a page",
    "analyze": "ask published chains why they forgot",
    "predict": "predict photos with a published step",
    "export": "write a published step's model as a file that loads without Stepchain",
    "evaluate": "score a published step on a dataset",
    "ingest": "put a dataset into the store, or show what it holds",
    "adopt": "publish a model that was trained elsewhere, so that increments start from it",
    "demo": "train a first result in minutes, without a download",
    "doctor": "check that this machine and its cluster can work",
    "submit": "submit a job to a cluster",
}
MODULES = {"campaign": "jobs.campaign.cli", "doctor": "jobs.doctor.cli"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job that the first argument names, with the other arguments."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help"):
        with user_errors():
            _print_verbs()
    elif verb == "--version":
        print(metadata.version("stepchain"))
    elif verb in VERBS:
        # Only this job's module is imported, so that each verb answers at once.
        import_module(MODULES.get(verb, f"jobs.{verb}")).main(rest)
    else:
        near = get_close_matches(verb, VERBS, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(VERBS)}"
        print(f"error: there is no job {verb!r}: {advice}", file=sys.stderr)
        raise SystemExit(2)


def _print_verbs() -> None:
    """Print what each verb does."""
    print("usage: stepchain VERB [options]\n")
    for verb, meaning in VERBS.items():
        print(f"  {verb:10}{meaning}")
    print("\n`stepchain VERB --help` lists the options of a verb.")


if __name__ == "__main__":
    main()
