"""Published chains without training anything: records, confusion counts and curves as a run would leave them in a store."""

import json
from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from orchestrator.planning.chain import Base, Chain
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import (
    ChainRecord,
    DataSource,
    EvaluationRecord,
    File,
    Provenance,
    StepRecord,
)
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from training.config import (
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    Optimization,
    StepConfig,
    Task,
)
from training.methods import fine_tuning, mib, wilson
from training.metrics import Confusion
from training.scenario import Scenario

DIGITS = tuple(str(digit) for digit in range(10))
PROVENANCE = Provenance(
    commit="0123456789abcdef",
    dirty=None,
    versions={"torch": "2.13.0"},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)
DATA = DataSource(name="digits", manifest="d" * 64, split="val")

PublishChain = Callable[..., ChainRecord]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def publish_chain() -> PublishChain:
    """Function that publishes a chain of made-up results and returns its record."""
    return publish


def publish(
    store: Store,
    name: str,
    *,
    groups: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10)),
    method: MethodConfig | None = None,
    kept: float = 0.8,
    names: tuple[str, ...] = DIGITS,
    content: str = "c" * 64,
    created: str = "2026-01-02T03:04:05Z",
    seed: int = 0,
    confusions: list[Confusion] | None = None,
) -> ChainRecord:
    """`kept`: share of old classes' pixels that later steps still get right; `confusions`: exact counts per step instead."""
    method = method or wilson.Config()
    weak = isinstance(method, wilson.Config)
    base = fine_tuning.Config(loss="bce" if weak else "cross_entropy")
    scenario = Scenario(
        dataset="digits",
        groups=tuple(tuple(names[c - 1] for c in g) for g in groups),
        supervision="image" if weak else "pixel",
    )
    chain = Chain(name=name, scenario=scenario, base=Base(method=base), method=method, seed=seed)
    class_names = {0: "background"} | {c: names[c - 1] for c in range(1, len(names) + 1)}
    steps, evaluations, parent = [], [], None
    for index in range(len(groups)):
        key, evaluation_key, attempt = (
            _digest(name, seed, index, created)[:16],
            _digest("evaluation", name, index)[:16],
            "a1",
        )
        config = StepConfig(
            task=Task(
                data="7" * 64,
                groups=groups[: index + 1],
                selection=_digest("rows", index),
                images=500 - 100 * index,
                supervision="image" if weak and index else "pixel",
            ),
            method=method if index else base,
            model=ModelConfig(encoder="tiny", output_stride=4, head_channels=24, eval_pooling=16),
            optimization=Optimization(epochs=10, batch=16),
            augmentation=chain.augmentation,
            seed=seed,
        )
        curves = json.dumps(made_up_curves(index, weak)).encode()
        files = {"curves.json": File(sha256=sha256(curves).hexdigest(), bytes=len(curves))}
        step = StepRecord(
            key=key,
            step=config,
            index=index,
            parent=parent,
            parent_attempt=attempt if parent else None,
            attempt=attempt,
            files=files,
            class_names=tuple(class_names[c] for c in config.task.classes),
            data=DATA.model_copy(update={"split": "train"}),
            iterations=300,
            seconds={"train": 42.0, "evaluate": 3.5},
            images_per_second=312.0,
            resources={"workers": 1},
            provenance=PROVENANCE,
        )
        confusion = (
            confusions[index]
            if confusions
            else made_up_confusion(groups[: index + 1], len(names), kept, seed)
        )
        counts = parquet(confusion)
        evaluation = EvaluationRecord(
            key=evaluation_key,
            step=key,
            attempt=attempt,
            data=DATA,
            content=content,
            config=EvaluationConfig(short_side=None, crop=None),
            images=len(np.unique(confusion.image)),
            class_names=class_names,
            confusion=File(sha256=sha256(counts).hexdigest(), bytes=len(counts)),
            provenance=PROVENANCE,
        )
        store.write(f"steps/{key}/attempts/{attempt}/files/curves.json", curves)
        store.write(f"steps/{key}/record.json", step.model_dump_json().encode())
        store.write(f"evaluations/{key}/{evaluation_key}.parquet", counts)
        store.write(
            f"evaluations/{key}/{evaluation_key}.json", evaluation.model_dump_json().encode()
        )
        steps.append(key)
        evaluations.append(evaluation_key)
        parent = key
    record = ChainRecord(
        key=_digest(name, seed, created)[:16],
        chain=chain.model_dump(mode="json"),
        steps=tuple(steps),
        evaluations=tuple(evaluations),
        created=created,
    )
    store.write(f"chains/{record.key}.json", record.model_dump_json().encode())
    return record


def made_up_confusion(
    groups: tuple[tuple[int, ...], ...], classes: int, kept: float, seed: int
) -> Confusion:
    """Images with background, void and one to three classes; old classes are right in `kept` of their pixels."""
    rng = np.random.default_rng([seed, len(groups), int(1000 * kept)])
    old, new = [c for group in groups[:-1] for c in group], list(groups[-1])
    rows = []
    for image in range(60):
        rows += [
            (image, 255, 0, 40),
            (image, 0, 0, 3000),
            (image, 0, int(rng.choice(old + new)), int(rng.integers(20, 200))),
        ]
        for truth in rng.choice(
            np.arange(1, classes + 1), rng.integers(1, 4), replace=False
        ).tolist():
            pixels = int(rng.integers(200, 500))
            known = truth in old or truth in new
            right = (
                round(pixels * rng.uniform(0.9, 1.0) * (kept if truth in old else 0.85))
                if known
                else 0
            )
            lost = pixels - right
            shares = [
                (truth, right),
                (0, lost // 2),
                (int(rng.choice(new)), lost // 3),
                (int(rng.choice(old + new)), lost // 6),
            ]
            rows += [(image, truth, predicted, count) for predicted, count in shares if count]
    return Confusion(*np.array(rows).T)


def made_up_curves(index: int, weak: bool) -> list[dict[str, float]]:
    rng = np.random.default_rng(index)
    names = ["classification", "prior", "encoder"] if weak and index else ["cross_entropy"]
    rows = []
    for iteration in range(10, 310, 10):
        terms = {
            f"loss/{name}": float(np.exp(-iteration / 120 - k) + rng.uniform(0.02, 0.05))
            for k, name in enumerate(names)
        }
        if weak and index and iteration > 90:
            terms["loss/segmentation"] = float(
                0.6 * np.exp(-iteration / 200) + rng.uniform(0.02, 0.05)
            )
        lr = 0.01 * (1 - iteration / 310) ** 0.9
        row = {
            "iteration": iteration,
            "total": 300,
            "epoch": iteration / 30,
            "time": 1.7e9 + iteration,
            "images_per_second": 312.0,
        }
        rows.append(
            row | {"loss": sum(terms.values()), "lr/encoder": lr / 10, "lr/head": lr} | terms
        )
    return rows


def parquet(confusion: Confusion) -> bytes:
    types = (pyarrow.uint32(), pyarrow.uint8(), pyarrow.uint8(), pyarrow.uint32())
    arrays = [pyarrow.array(column, kind) for column, kind in zip(confusion, types, strict=True)]
    out = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(Confusion._fields)), out)
    return out.getvalue()


def _digest(*parts: object) -> str:
    return sha256("/".join(map(str, parts)).encode()).hexdigest()


@pytest.fixture(scope="session")
def demo_chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChainResult, ...]:
    """Three chains as the demo publishes them, made up and read back."""
    store = open_store(str(tmp_path_factory.mktemp("demo")))
    records = [
        publish(store, "WILSON", kept=0.92),
        publish(store, "MiB", method=mib.Config(), kept=0.85),
        publish(store, "fine-tuning", method=fine_tuning.Config(), kept=0.02),
    ]
    return load_chains(Repository(store), records)
