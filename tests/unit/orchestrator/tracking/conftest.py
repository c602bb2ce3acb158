"""Fixtures of MLflow databases, and of a chain that they show."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.planning.campaign import Campaign
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import ChainRecord
from orchestrator.store.base import Store
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import rebuild
from training.metrics import wilson


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an sqlite file as MLflow sets it up, which takes seconds and is done once."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    RunClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def other_uri(empty_database: Path, tmp_path: Path) -> str:
    """Return a second MLflow, for comparison."""
    shutil.copy(empty_database, tmp_path / "other.db")
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture
def result(store: Store, publish_chain: Callable[..., ChainRecord]) -> ChainResult:
    return load_chains(Repository(store), [publish_chain(store, "alpha 0.5")])[0]


@pytest.fixture(scope="session")
def campaign_uri(
    finished_campaign: tuple[Campaign, Store],
    tmp_path_factory: pytest.TempPathFactory,
    empty_database: Path,
) -> str:
    """Return an MLflow rebuilt from the store of the finished campaign. Tests only read it."""
    path = tmp_path_factory.mktemp("campaign-mlflow") / "mlflow.db"
    shutil.copy(empty_database, path)
    rebuild(finished_campaign[1], f"sqlite:///{path}", wilson())
    return f"sqlite:///{path}"
