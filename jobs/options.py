"""Define the options that several jobs share: the store, the weights, the workers and MLflow.

None of them is part of a key.
"""

import shlex
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from orchestrator.cluster.resources import Request
from orchestrator.records.store_version import check_there, open_checked_store
from orchestrator.store.base import Store
from orchestrator.store.open import default_store
from orchestrator.store.passwords import without_passwords
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from training.config import InputError

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Tracker


Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def check_number(option: str, value: float | None, least: float, most: float = 1e9) -> None:
    """Raise InputError unless the number that an option was given, if any, is within bounds."""
    if value is not None and not least <= value <= most:
        bound = f"at most {most:g}" if value > most else f"at least {least:g}"
        raise InputError(f"--{option} must be {bound}, and {value:g} is not")


@dataclass(frozen=True)
class StoreOptions:
    """Where everything is."""

    store: str = field(default_factory=default_store)
    """Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store."""

    def open(self) -> Store:
        """Open the store. Raise StoreError for one that this Stepchain cannot read."""
        return open_checked_store(self.store)

    def open_existing(self) -> Store:
        """Open a store that somebody has written to. Raise StoreError if there is none."""
        store = self.open()
        check_there(store)
        return store


@dataclass(frozen=True)
class ChainOptions(StoreOptions):
    """Where everything is, and what every chain starts from."""

    encoder_weights: tuple[str, ...] = ()
    """Pretrained weights of the encoder: a path or URI of safetensors or torchvision's .pth. For an
    encoder of Transformers, a folder with config.json and model.safetensors, or hf://OWNER/NAME.
    Of several, each encoder takes the first that fits it."""
    adopted: str | None = None
    """Adopted model (jobs.adopt) that chains start from instead of training step 0: its name, or
    its step's key. Its model replaces that of the chain."""


@dataclass(frozen=True)
class JobOptions(ChainOptions):
    """Everything that a job which trains needs besides its chains."""

    allow_overlap: bool = False
    """Train and score although images of the split val are also in the split train."""
    tracking: bool = True
    """Show the chains in MLflow."""
    tracking_uri: str | None = None
    """MLflow's address; by default $MLFLOW_TRACKING_URI or a database file in the store."""
    lease_seconds: float = DEFAULT_RETRIES.lease_seconds
    """How long the lease of a job that stopped responding holds. Then another job may train its
    steps."""
    request: Annotated[Request, tyro.conf.arg(name="")] = field(default_factory=Request)

    def open(self) -> Store:
        """Open the store, unless another option cannot be used."""
        check_number("lease-seconds", self.lease_seconds, 1)
        return super().open()

    @property
    def retries(self) -> Retries:
        """Return the product's retries, with this job's leases."""
        return replace(DEFAULT_RETRIES, lease_seconds=self.lease_seconds)

    def tracker(self, store: Store) -> "Tracker | None":
        """Return the tracker that shows the chains in MLflow, or None when tracking is off."""
        from orchestrator.tracking.tracker import open_tracker

        return open_tracker(store, self.tracking_uri) if self.tracking else None

    def announce(self, store: Store, console: Console) -> None:
        """Print where results appear, and the command that resumes this job.

        Passwords within URIs are left out.
        """
        for name, value in self._addresses(store).items():
            shown = f"{name:10}{without_passwords(value)}"
            console.print(shown, highlight=False, markup=False, soft_wrap=True)

    def _addresses(self, store: Store) -> dict[str, str]:
        """Return what `announce` prints, by name."""
        from orchestrator.cluster.connection import dashboard_address
        from orchestrator.records.provenance import submission
        from orchestrator.tracking.tracker import tracking_uri

        found = {"store": store.uri}
        if self.tracking:
            found["MLflow"] = tracking_uri(store, self.tracking_uri)
        command = ["python", *sys.orig_argv[1:]]
        job = submission()
        if job:
            command = ["python", "-m", "jobs.submit", "--", *command]
            address = dashboard_address()
            if address:
                found["Ray"] = f"{address}/#/jobs/{job}"
        found["resume by"] = shlex.join(command)
        return found


@dataclass(frozen=True)
class Questions:
    """What a plan also looks at."""

    why: Flag = False
    """For each step to be trained, show the nearest published step and what differs."""
    verify: Flag = False
    """Read the files of published steps again and compare their digests."""


AtStore = Annotated[StoreOptions, tyro.conf.arg(name="")]
