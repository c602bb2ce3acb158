"""Test samples of Ray Tune's search spaces: the same on every machine, and checked."""

from itertools import product
from typing import Any

import pytest
from ray import tune

from orchestrator.cluster.search_spaces import describe_space, rounded
from orchestrator.planning.campaign import sweep
from orchestrator.planning.sampling import draw_samples
from stepchain.presets import digits_wilson
from training.config import InputError
from training.methods import lwf, mib

SPACES = {
    "method.alpha": tune.uniform(0, 1),
    "optimization.encoder_lr": tune.loguniform(1e-4, 1e-1),
    "method.prior": tune.choice(("bce", "fixed")),
    "optimization.head_lr": tune.quniform(0, 1, 0.1),
    "optimization.epochs": tune.qrandint(10, 40, 10),
    "method.warmup_epochs": tune.lograndint(1, 9),
}


# A change of these changes the keys of published steps.
FIRST_SAMPLES = [
    (0.3847, 0.0005007, "fixed", 0.3, 20, 6),
    (0.7246, 0.0006894, "bce", 0.7, 10, 7),
    (0.1317, 0.0008935, "bce", 0.1, 30, 1),
]


def test_the_samples_are_these_on_every_machine():
    samples = [tuple(sample.values()) for sample in draw_samples(SPACES, 3, seed=0)]
    assert samples == FIRST_SAMPLES


def test_more_samples_and_other_axes_keep_what_there_is():
    few = draw_samples(SPACES, 4, seed=7)
    assert draw_samples(SPACES, 9, seed=7)[:4] == few
    alone = draw_samples({"method.alpha": SPACES["method.alpha"]}, 4, seed=7)
    assert [each["method.alpha"] for each in alone] == [each["method.alpha"] for each in few]
    assert draw_samples(SPACES, 4, seed=8) != few


@pytest.mark.parametrize("name", SPACES)
def test_values_are_within_their_space(name: str):
    for sample in draw_samples(SPACES, 50, seed=1):
        value = sample[name]
        assert SPACES[name].is_valid(value)
        assert type(value) in (float, int, str)
        if isinstance(value, float):
            assert len(f"{value:.12g}".strip("0.").replace(".", "").split("e")[0]) <= 4


def test_samples_differ():
    spaces = {"method.prior": tune.choice(("a", "b", "c"))}
    found = draw_samples(spaces, 3, seed=0)
    assert sorted(each["method.prior"] for each in found) == ["a", "b", "c"]
    with pytest.raises(InputError, match="no more than 3 different samples, and 4 are asked for"):
        draw_samples(spaces, 4, seed=0)


@pytest.mark.parametrize(
    "space",
    [
        tune.uniform(1, 0),
        tune.loguniform(1e-2, 1e-4),
        tune.quniform(1, 0, 0.5),
        tune.randint(5, 2),
        tune.randint(5, 5),
        tune.choice([]),
    ],
)
def test_a_space_that_holds_nothing_is_named(space: Any):
    with pytest.raises(InputError, match=r"axis 'method\.alpha' (has no number from|chooses from)"):
        draw_samples({"method.alpha": space}, 1, seed=0)
    with pytest.raises(InputError, match=r"axis 'method\.alpha' (has no number from|chooses from)"):
        sweep(digits_wilson(), {"method.alpha": space}, samples=1, search="optuna")


def test_a_space_of_one_number_holds_one_sample():
    assert draw_samples({"method.alpha": tune.uniform(1, 1)}, 1, seed=0) == [{"method.alpha": 1}]
    assert draw_samples({"seed": tune.randint(5, 6)}, 1, seed=0) == [{"seed": 5}]


def test_other_spaces_have_other_words():
    spaces = [
        tune.randint(1, 5),
        tune.uniform(1, 4),
        tune.uniform(1, 4.0000001),
        tune.loguniform(1, 4),
        tune.quniform(1, 4, 0.5),
        tune.quniform(1, 4, 0.25),
        tune.randn(1, 4),
    ]
    assert len({describe_space(space) for space in spaces}) == len(spaces)
    assert describe_space(spaces[0]) == "1 to 4, whole numbers"
    assert describe_space(spaces[1]) == "1 to 4"


def test_what_a_searcher_names_between_multiples_becomes_one():
    assert rounded(tune.qloguniform(0.001, 1, 0.001), 0.012520653815) == 0.013
    assert rounded(tune.quniform(0, 1, 0.1), 0.30000000000000004) == 0.3
    assert rounded(tune.uniform(0, 1), 0.012520653815) == 0.01252


def test_every_sample_is_combined_with_the_values_of_the_other_axes():
    chains = sweep(
        digits_wilson(),
        {
            "scenario.setting": tune.grid_search(["disjoint", "overlap"]),
            "method.alpha": tune.uniform(0, 1),
            "seed": range(2),
        },
        samples=3,
    )
    alphas = list(dict.fromkeys(chain.method.model_dump()["alpha"] for chain in chains))
    assert len(alphas) == 3
    assert [
        (chain.method.model_dump()["alpha"], chain.scenario.setting, chain.seed) for chain in chains
    ] == list(product(alphas, ("disjoint", "overlap"), (0, 1)))
    assert chains[1].name == f"digits_wilson setting=disjoint alpha={alphas[0]} seed=1"


def test_documents_are_drawn_like_other_values():
    methods = (mib.Config(), lwf.Config())
    chains = sweep(digits_wilson(), {"method": tune.choice(methods)}, samples=2)
    assert {chain.method.name for chain in chains} == {"mib", "lwf"}


@pytest.mark.parametrize(
    ("axes", "samples", "message"),
    [
        ({"method.alpha": tune.uniform(0, 1)}, None, "how many samples are drawn of method.alpha"),
        ({"method.alpha": tune.uniform(0, 1)}, 0, "how many samples are drawn of method.alpha"),
        ({"method.alpha": (0, 1)}, 3, "samples are drawn from search spaces, such as"),
        ({"seed": tune.randint(0, 9)}, 3, "seeds repeat an experiment: give them as values"),
        ({"method.alpha": tune.uniform(5, 9)}, 3, "method.alpha cannot be"),
        ({"method.aplha": tune.uniform(0, 1)}, 3, "did you mean 'method.alpha'"),
        (
            {"method.alpha": tune.sample_from(lambda config: 1)},
            3,
            "'method.alpha' draws by a function",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(axes: dict[str, Any], samples: int | None, message: str):
    with pytest.raises(InputError, match=message):
        sweep(digits_wilson(), axes, samples=samples)
