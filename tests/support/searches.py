"""A small searched campaign that trains for real, and what a store holds of it."""

from pathlib import Path

from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits

SEARCH = '''"""Which alpha is best?"""

from ray import tune

from stepchain import digits_wilson, sweep, with_field


def chains():
    start = with_field(digits_wilson(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", EPOCHS)
    axes = {"method.alpha": tune.uniform(0, 1), "seed": (1,)}
    return sweep(start, axes, samples=SAMPLES, search="optuna")
'''


def write_search(folder: Path, *, samples: int, epochs: int) -> tuple[Store, Path]:
    """Write the campaign's file and a store with digits; return both."""
    store = open_store(str(folder / "store"))
    publish_digits(store, folder / "built", seed=2, train=80, val=8)
    path = folder / "search.py"
    path.write_text(SEARCH.replace("SAMPLES", str(samples)).replace("EPOCHS", str(epochs)))
    return store, path


def sample_list(store: Store) -> dict[str, bytes]:
    """Return the list of samples of the store's only search."""
    return {name: store.read(name) for name in store.list("searches/")}
