"""Keys are pinned: a change that moves one orphans everything ever published.

`python tests/unit/orchestrator/records/test_keys.py` writes tests/golden/keys.json again, for a
change that is meant to.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import Field

from orchestrator.planning.chain import Base, Chain
from orchestrator.records.keys import chain_key, evaluation_key, step_key
from orchestrator.store.canonical import canonical_json, digest
from tests.support.paths import GOLDEN
from training.config import (
    Augmentation,
    Document,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    Optimization,
    Task,
)
from training.methods import fine_tuning, lwf, mib, wilson
from training.scenario import Scenario
from training.step_config import StepConfig

KEYS = GOLDEN / "keys.json"


def step(method: MethodConfig, groups=((1, 2, 3), (4, 5)), **changes) -> StepConfig:
    supervision = "image" if isinstance(method, wilson.Config) else "pixel"
    task = Task(
        data="d" * 64, groups=groups, selection="5" * 64, images=500, supervision=supervision
    )
    fields = {
        "model": ModelConfig(encoder="tiny", output_stride=4, head_channels=24, eval_pooling=16),
        "optimization": Optimization(epochs=10, batch=16),
        "augmentation": Augmentation(crop=64),
    }
    return StepConfig(task=task, method=method, **(fields | changes))


def chain(**changes) -> Chain:
    scenario = Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4")))
    fields = {"name": "wilson", "scenario": scenario, "base": Base(), "method": wilson.Config()}
    return Chain(**(fields | changes))


@pytest.mark.parametrize("name", json.loads(KEYS.read_text())["steps"])
def test_key_of_a_stored_step_is_the_pinned_one(name):
    entry = json.loads(KEYS.read_text())["steps"][name]
    assert step_key(StepConfig.model_validate(entry["step"]), entry["parent"]) == entry["key"]


def test_key_of_a_stored_evaluation_and_chain_is_the_pinned_one():
    golden = json.loads(KEYS.read_text())
    entry = golden["evaluation"]
    config = EvaluationConfig.model_validate(entry["config"])
    assert evaluation_key(entry["step"], entry["attempt"], entry["content"], config) == entry["key"]
    entry = golden["chain"]
    assert (
        chain_key(Chain.model_validate(entry["chain"]), entry["steps"], entry["evaluations"])
        == entry["key"]
    )


def test_canonical_json_is_ascii_sorted_and_without_spaces():
    assert (
        canonical_json({"é": [1, 2.0, None, True], "a": (0.1, "x")})
        == b'{"a":[0.1,"x"],"\\u00e9":[1,2.0,null,true]}'
    )


@pytest.mark.parametrize(
    "value", [np.float64(1), np.int64(1), {1, 2}, Path("x"), b"x", {1.5: 0}, {"a": object()}]
)
def test_a_type_that_need_not_write_itself_alike_everywhere_is_refused(value):
    with pytest.raises(TypeError, match="canonical JSON"):
        canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": {1: 0, "1": 0}}])
def test_a_value_without_one_form_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_number_means_the_same_however_it_is_given():
    given = [
        Optimization(epochs=5),
        Optimization(epochs=5.0),
        Optimization().model_copy(update={"epochs": 5}),
    ]
    assert len({canonical_json(document) for document in given}) == 1
    # The default is written 30.
    assert canonical_json(Optimization()) == canonical_json(Optimization(epochs=30.0))


def test_a_document_altered_past_its_checks_gets_no_key():
    with pytest.raises(ValueError, match="epochs"):
        canonical_json(Optimization().model_copy(update={"epochs": "many"}))


def test_a_step_read_back_from_json_has_its_key():
    for method in (wilson.Config(alpha=1), mib.Config(), lwf.Config()):
        document = step(method)
        assert step_key(
            StepConfig.model_validate_json(document.model_dump_json()), "p"
        ) == step_key(document, "p")
        assert StepConfig.model_validate_json(canonical_json(document)) == document


def test_everything_that_decides_a_step_enters_its_key():
    keys = {
        step_key(step(wilson.Config()), "a"),
        step_key(step(wilson.Config()), "b"),
        step_key(step(wilson.Config(alpha=0.7)), "a"),
        step_key(step(wilson.Config(), seed=43), "a"),
        step_key(step(wilson.Config(), recipe=2), "a"),
        step_key(step(wilson.Config(), groups=((1, 2, 3), (5, 4))), "a"),
        step_key(step(mib.Config()), "a"),
        step_key(step(lwf.Config()), "a"),
    }
    assert len(keys) == 8
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


def test_an_evaluation_is_known_by_weights_data_and_view():
    base = ("s", "a", "c", EvaluationConfig())
    others = [
        ("t", "a", "c", EvaluationConfig()),
        ("s", "b", "c", EvaluationConfig()),
        ("s", "a", "d", EvaluationConfig()),
    ]
    others.append(("s", "a", "c", EvaluationConfig(crop=None)))
    assert len({evaluation_key(*arguments) for arguments in [base, *others]}) == 5


def test_a_chain_is_known_by_its_request_and_its_results():
    keys = {
        chain_key(chain(), ["a", "b"], ["c", "d"]),
        chain_key(chain(name="again"), ["a", "b"], ["c", "d"]),
        chain_key(chain(), ["b", "a"], ["c", "d"]),
        chain_key(chain(), ["a", "b"], ["c", "e"]),
    }
    assert len(keys) == 4


class Before(Document):
    sharpness: float = 1.0


class After(Document):
    sharpness: float = 1.0
    blur: float = Field(default=0.0, json_schema_extra={"legacy": 0.0})


class Holder(Document):
    picture: After


def test_a_new_field_at_its_legacy_value_changes_no_key():
    assert digest(After()) == digest(After(blur=0)) == digest(Before())
    assert digest(Holder(picture=After())) == digest({"picture": Before()})
    assert digest(After(blur=0.5)) != digest(Before())
    assert After.model_validate_json(canonical_json(Before())) == After()


def test_a_legacy_value_that_is_not_the_default_is_refused():
    class Wrong(Document):
        blur: float = Field(default=1.0, json_schema_extra={"legacy": 0.0})

    with pytest.raises(TypeError, match=r"Wrong\.blur: the default must be the legacy value"):
        digest(Wrong())


def test_digest_of_bytes_is_their_sha256():
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def write_golden_keys() -> None:
    base = step(fine_tuning.Config(loss="bce"), groups=((1, 2, 3),))
    parent = step_key(base, None)
    methods = (
        fine_tuning.Config(),
        lwf.Config(),
        mib.Config(),
        wilson.Config(),
        wilson.Config(alpha=1, affinity=False),
    )
    documents = {"base": (base, None)} | {
        f"{number} {m.name}": (step(m), parent) for number, m in enumerate(methods)
    }
    steps = {
        name: {
            "key": step_key(document, parent),
            "parent": parent,
            "step": document.model_dump(mode="json"),
        }
        for name, (document, parent) in documents.items()
    }
    config = EvaluationConfig()
    asked = chain()
    evaluation = {"step": parent, "attempt": "a1", "content": "c" * 64}
    evaluated = evaluation_key(parent, "a1", "c" * 64, config)
    made = {"steps": [parent, steps["3 wilson"]["key"]], "evaluations": [evaluated]}
    golden = {
        "steps": steps,
        "evaluation": evaluation | {"key": evaluated, "config": config.model_dump(mode="json")},
        "chain": made
        | {
            "key": chain_key(asked, made["steps"], made["evaluations"]),
            "chain": asked.model_dump(mode="json"),
        },
    }
    KEYS.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_golden_keys()
