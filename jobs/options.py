"""What jobs that train ask for besides chains: where results go, who trains and who watches. No part of any key."""

import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from rich.console import Console

from orchestrator.cluster.connection import dashboard_address
from orchestrator.cluster.resources import Request
from orchestrator.datasets.pretrained import publish_weights
from orchestrator.planning.chain import Chain
from orchestrator.records.provenance import submission
from orchestrator.store.base import Store
from orchestrator.store.open import DEFAULT_STORE
from orchestrator.tracking.tracker import Tracker, store_tracker, tracking_uri
from training.config import ModelConfig


@dataclass(frozen=True)
class StoreOptions:
    """Where everything is, and what every chain starts from."""

    store: str = DEFAULT_STORE
    """Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store."""
    encoder_weights: str | None = None
    """Pretrained weights of the encoder: a path or URI of safetensors or torchvision's .pth."""


@dataclass(frozen=True)
class JobOptions(StoreOptions):
    """All of it."""

    tracking: bool = True
    """Show the chains in MLflow."""
    tracking_uri: str | None = None
    """Where MLflow is; by default $MLFLOW_TRACKING_URI or a database file in the store."""
    lease_seconds: float = 60
    """How long a job that fell silent keeps the steps it was training; then another takes them over."""
    request: Annotated[Request, tyro.conf.arg(name="")] = field(default_factory=Request)

    def tracker(self, store: Store) -> Tracker | None:
        """Who shows the chains in MLflow, to be entered as a context; None when nobody shall."""
        return store_tracker(store, self.tracking_uri) if self.tracking else None

    def announce(self, store: Store, console: Console) -> None:
        """Say where all can be seen, and how to go on after an interruption; no password of a URI is shown."""
        job, again = submission(), ["python", *sys.orig_argv[1:]]
        lines = {
            "store": store.uri,
            "MLflow": tracking_uri(store, self.tracking_uri) if self.tracking else None,
        }
        if job:
            address = dashboard_address()
            lines["Ray"] = f"{address}/#/jobs/{job}" if address else None
            again = ["python", "-m", "jobs.submit", "--", *again]
        lines["go on by"] = shlex.join(again)
        for name, value in lines.items():
            if value:
                shown = re.sub(r"//[^/@\s]+@", "//", value)
                console.print(f"{name:9}{shown}", highlight=False, markup=False, soft_wrap=True)


def with_weights(chains: Iterable[Chain], source: str | None, store: Store) -> list[Chain]:
    """The chains with the encoder's weights at `source`, which are checked and put into the store; as they are without."""
    if source is None:
        return list(chains)
    published: dict[ModelConfig, str] = {}
    found = []
    for chain in chains:
        if chain.model not in published:
            published[chain.model] = publish_weights(store, source, chain.model)
        model = chain.model.model_copy(update={"weights": published[chain.model]})
        found.append(chain.model_copy(update={"model": model}))
    return found
