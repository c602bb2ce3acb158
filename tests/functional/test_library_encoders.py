"""Methods, precisions, memory estimates and plans work with encoders of Transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.campaign_plan import plan_tree
from orchestrator.planning.planner import Planner
from orchestrator.store.open import open_store
from stepchain.presets import digits_mib
from tests.support.datasets import build_dataset
from tests.support.encoders import small_model
from tests.support.methods import LATER, build_batch, build_method, build_step
from tests.support.paths import ROOT
from training.config import InputError, MethodConfig, ModelConfig
from training.data.digits import Digits
from training.encoder_check import check_encoder
from training.iteration import build_optimizer, iterate, place
from training.loss_guard import LossGuard
from training.memory_estimate import estimate_memory
from training.methods import ewc, icarl, ilt, lwf, mib, offline, plop, wilson
from training.methods.base import full_precision
from training.precision import autocast, gradient_scaler
from training.runtime import Runtime
from training.step_config import StepConfig

pytest.importorskip("transformers")
METHODS = (
    ilt.Config(),
    icarl.Config(encoder_distillation=1),
    lwf.Config(),
    mib.Config(),
    plop.Config(),
    ewc.Config(weight=1),
    offline.Config(classifier_epochs=5),
    wilson.Config(warmup_epochs=1),
)
CPU = torch.device("cpu")


def step(method: MethodConfig, kind: str, **optimization: str) -> StepConfig:
    """Return a later step on a small encoder."""
    model = {
        "swin": small_model("swin", "stage2", "stage3", output_stride=8),
        "dinov2": small_model("dinov2", head="linear", head_channels=16),
    }[kind]
    document = build_step(method)
    optimized = document.optimization.model_copy(update=optimization)
    return document.model_copy(update={"model": model, "optimization": optimized})


def trained_once(document: StepConfig) -> tuple[dict, dict]:
    """Train one iteration; return the encoder's weights before and after."""
    method = place(build_method(document).float(), CPU)
    before = {n: v.clone() for n, v in method.model.encoder.state_dict().items()}
    precision = document.optimization.precision
    batch = build_batch(document)
    batch = batch._replace(images=batch.images.float(), image_labels=batch.image_labels.float())
    if precision == "float64":
        batch = build_batch(document)
    losses = iterate(
        method,
        method,
        build_optimizer(method, CPU),
        LossGuard(Runtime(), 100),
        batch,
        LATER,
        autocast(precision, CPU),
        gradient_scaler(precision, CPU),
    )
    assert all(torch.isfinite(full_precision(loss)) for loss in losses.values())
    return before, method.model.encoder.state_dict()


@pytest.mark.parametrize("kind", ["swin", "dinov2"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_them(method: MethodConfig, kind: str) -> None:
    before, after = trained_once(step(method, kind))
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precisions_round_them(precision: str) -> None:
    before, after = trained_once(step(plop.Config(), "swin", precision=precision))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_frozen_encoder_stays() -> None:
    before, after = trained_once(step(mib.Config(), "dinov2", frozen="encoder"))
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["swin", "dinov2"])
def test_their_memory_is_estimated(kind: str) -> None:
    whole, half, frozen = (
        estimate_memory(step(mib.Config(), kind, **changes))
        for changes in (
            {"precision": "float32"},
            {"precision": "bfloat16"},
            {"precision": "float32", "frozen": "encoder"},
        )
    )
    assert frozen.saved < half.saved < whole.saved


def test_a_campaign_over_encoders_and_methods_shares_step_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(train=60, val=4), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    models = {kind: small_model(kind) for kind in ("swin", "dinov2")}
    methods = {"mib": mib.Config(), "plop": plop.Config()}
    chains = sweep(digits_mib(), {"model": models, "method": methods})
    tree = plan_tree(Campaign("encoders", "", chains), Planner(store))
    assert (len(tree.chains), len(tree.nodes)) == (4, 2 + 4)
    incomplete = small_model("swin").model_dump()
    del incomplete["backbone"]["architecture"]["mlp_ratio"]
    chain = chains[0].model_copy(update={"model": ModelConfig.model_validate(incomplete)})
    with pytest.raises(InputError, match="lacks 'mlp_ratio'"):
        Planner(store).plan(chain)
    assert Planner(store, recorded=True).plan(chain).steps


def test_the_campaign_of_the_guide_has_its_chains() -> None:
    guide = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    exec(guide.split("```python\n")[1].split("```")[0], found)
    models = {chain.model for chain in found["chains"]()}
    assert len(models) == 2
    for model in models:
        check_encoder(model)
