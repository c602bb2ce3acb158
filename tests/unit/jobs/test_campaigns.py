"""Every campaign that ships can be trained, shares its steps, and knows the paper's numbers."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import jobs.campaigns
from orchestrator.planning.chain import Chain
from orchestrator.planning.paper_numbers import Expected, find_paper_number
from orchestrator.planning.resolver import PlannedStep, Resolver
from orchestrator.planning.step_layers import StoredLayer
from orchestrator.planning.variants import group_variants
from tests.support.datasets import make_index
from tests.support.paths import GOLDEN
from training.data.voc import VOC_CLASSES

NAMES = sorted(path.stem for path in Path(str(jobs.campaigns.__file__)).parent.glob("[a-z]*.py"))
# Those with the papers' settings.
OF_VOC = [name for name in NAMES if not name.startswith(("digits_", "photos_"))]
# How many chains of each campaign no paper reports: icarl, 10-10 by EWC, PI and RW, ...
UNREPORTED = {
    "interventions": 8,
    "methods": 10,
    "mib_components": 7,
    "one_by_one": 4,
    "seeds": 0,
    "single_classes": 5,
    "weak_images": 8,
    "weak_start": 5,
    "wilson_alpha": 0,
    "wilson_prior": 0,
    "wilson_supervision": 0,
}


def resolver(classes: tuple[str, ...], labels: np.ndarray) -> Resolver:
    """For images with these classes, bool [images, classes]."""
    maps = make_index(labels)

    def open_layer(name: str) -> StoredLayer:
        return StoredLayer(name, "manifest", maps)

    return Resolver(classes, make_index(labels), "content", open_layer=open_layer)


@pytest.fixture(scope="module")
def resolvers() -> dict[str, Resolver]:
    """PASCAL VOC 2012 as it is, and 1,500 scenes of two digits on average."""
    with np.load(GOLDEN / "voc_labels.npz") as file:
        voc = np.unpackbits(file["train_aug"], axis=1, count=20).astype(bool)
    digits = np.random.default_rng(0).random((1500, 10)) < 0.2
    return {"voc": resolver(VOC_CLASSES, voc), "digits": resolver(tuple("0123456789"), digits)}


def chains(name: str) -> tuple[Chain, ...]:
    return importlib.import_module(f"jobs.campaigns.{name}").chains()


def expected(name: str) -> tuple[Expected, ...]:
    return getattr(importlib.import_module(f"jobs.campaigns.{name}"), "PAPER", ())


def docstring(name: str) -> str:
    return importlib.import_module(f"jobs.campaigns.{name}").__doc__ or ""


def test_every_campaign_has_a_twin_that_needs_no_download():
    photos = {name for name in NAMES if name.startswith("photos_")}
    assert {f"digits_{name}" for name in OF_VOC} == set(NAMES) - set(OF_VOC) - photos


@pytest.mark.parametrize("name", NAMES)
def test_a_campaign_trains_what_it_says(name: str, resolvers: dict[str, Resolver]):
    wanted = chains(name)
    steps: list[PlannedStep] = [s for c in wanted for s in resolvers[c.scenario.dataset].resolve(c)]
    unique = {step.key: step for step in steps}
    assert f"\n{len(unique)} steps instead of {len(steps)}: " in docstring(name)
    assert len(unique) < len(steps)
    assert len({chain.name for chain in wanted}) == len(wanted)
    assert len({chain.name.split()[0] for chain in wanted} | {name}) == 1
    assert f"python -m jobs.campaign run {name}" in docstring(name)
    assert docstring(name).splitlines()[0].count("?") == 1, "it begins with its question"
    cost = re.search(r"images x epochs = ([\d.]+) million", docstring(name))
    if name in OF_VOC:
        trained = sum(len(step.rows) * step.step.optimization.epochs for step in unique.values())
        assert cost is not None
        assert float(cost[1]) == round(trained / 1e6, 2)


@pytest.mark.parametrize("name", OF_VOC)
def test_a_campaign_on_voc_trains_the_papers_network(name: str):
    models = {(chain.model.dilated_blocks, chain.model.activation) for chain in chains(name)}
    assert models == {("all", "leaky_relu")}


@pytest.mark.parametrize("name", OF_VOC)
def test_the_papers_numbers_stand_in_the_docstring(name: str):
    """Each chain's number, wherever a paper has one."""
    numbers = [find_paper_number(chain, expected(name), "mib") for chain in chains(name)]
    assert numbers.count(None) == UNREPORTED[name]
    for number in filter(None, numbers):
        assert number.all is not None
        assert re.search(rf"\b{100 * number.all:.1f}\b", docstring(name)), number


def test_an_intervention_has_no_number_of_plain_fine_tuning():
    wanted = {
        chain.name: find_paper_number(chain, expected("interventions"), "mib")
        for chain in chains("interventions")
    }
    known = {
        name.removeprefix("interventions "): number.variant
        for name, number in wanted.items()
        if number
    }
    assert known == {"cross-entropy": "FT", "distillation": "LwF", "mib": "MiB"}


def test_cells_of_one_table_name_what_they_differ_in():
    names = [
        variant.name.removesuffix(" split=15-5 setting=disjoint")
        for variant in group_variants(chains("methods"))
    ][::4]
    assert names[:8] == ["joint", "fine-tuning", "pi", "ewc", "rw", "lwf", "ilt", "mib"]
    assert names[9:] == [
        "lwf-mc",
        "icarl",
        "offline pseudo_labels=cam",
        "offline pseudo_labels=single_stage",
        "wilson",
    ]
    assert [len(variant.chains) for variant in group_variants(chains("seeds"))] == [5, 5, 5]
    alphas = group_variants(chains("digits_wilson_alpha"))
    assert [variant.name for variant in alphas] == [
        "alpha=0",
        "alpha=0.3",
        "alpha=0.5",
        "alpha=0.7",
        "alpha=1",
    ]
    assert [len(variant.chains) for variant in alphas] == [5] * 5
