"""Test that steps' documents hold what they use alone, and that bad chains are refused."""

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.resolver import PlanError, PlannedStep, Resolver
from tests.support.datasets import make_index
from training.config import MethodConfig, ModelConfig, Optimization
from training.methods import (
    dft,
    ewc,
    ewf,
    fine_tuning,
    icarl,
    joint,
    mib,
    offline,
    pi,
    plop,
    rw,
    wilson,
)
from training.scenario import Scenario

CLASSES = ("cat", "chair", "cow", "dog", "horse")


LABELS = np.random.default_rng(0).random((60, 5)) < 0.4
LABELS[LABELS.sum(1) == 0, 0] = True
SMALL = Optimization(batch=4, epochs=2)


def chain(**fields: Any) -> Chain:
    scenario = Scenario(
        dataset="pets", groups=(("cat", "chair"), ("cow", "dog"), ("horse",)), supervision="pixel"
    )
    start: dict[str, Any] = {
        "name": "test",
        "scenario": scenario,
        "base": Base(optimization=SMALL),
        "optimization": SMALL,
    }
    return Chain(**{**start, "method": mib.Config(), **fields})


def steps(wanted: Chain, labels: np.ndarray = LABELS) -> tuple[PlannedStep, ...]:
    return Resolver(CLASSES, make_index(labels), "content").resolve(wanted)


def test_steps_follow_one_another():
    base, second, third = steps(chain())
    assert [step.index for step in (base, second, third)] == [0, 1, 2]
    assert (base.parent, second.parent, third.parent) == (None, base.key, second.key)
    assert base.step.method == fine_tuning.Config()
    assert third.step.method == mib.Config()
    assert third.step.task.groups == ((1, 2), (3, 4), (5,))
    assert third.class_names == ("cat", "chair", "cow", "dog", "horse")
    assert base.step.task.supervision == "pixel"
    assert second.iterations == 2 * (len(second.rows) // 4)
    assert second.title == "step 1 (mib: cow, dog)"


def test_selected_images_are_those_the_document_names():
    _, second, _ = steps(chain())
    assert second.rows.tolist() == np.flatnonzero(LABELS[:, 2] | LABELS[:, 3]).tolist()
    assert second.step.task.images == len(second.rows)
    assert second.step.task.selection == make_index(LABELS).selection_digest(second.rows)


@pytest.mark.parametrize(
    "changed",
    [
        {"method": mib.Config(distillation_weight=20)},
        {"optimization": Optimization(batch=4, epochs=3)},
        {"name": "other"},
        {"evaluation": {"short_side": 32, "crop": 32}},
    ],
)
def test_what_step_0_does_not_use_is_not_in_its_key(changed: dict[str, Any]):
    assert steps(chain(**changed))[0].key == steps(chain())[0].key


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"base": Base(optimization=Optimization(batch=4, epochs=3))}]
)
def test_what_step_0_uses_is_in_every_key(changed: dict[str, Any]):
    assert not {step.key for step in steps(chain(**changed))} & {
        step.key for step in steps(chain())
    }


def test_later_groups_enter_through_the_selection_alone():
    """Under overlap, splits that begin alike share step 0. Under disjoint its images differ."""
    overlap = chain().scenario
    coarse = overlap.model_copy(update={"groups": (("cat", "chair"), ("cow", "dog", "horse"))})
    fewer = overlap.model_copy(update={"groups": (("cat", "chair"), ("cow", "dog"))})
    assert steps(chain(scenario=coarse))[0].key == steps(chain(scenario=overlap))[0].key
    assert [s.key for s in steps(chain(scenario=fewer))] == [s.key for s in steps(chain())][:2]
    keys = {
        steps(chain(scenario=s.model_copy(update={"setting": "disjoint"})))[0].key
        for s in (coarse, fewer)
    }
    assert len(keys) == 2


def test_pretrained_weights_belong_to_step_0():
    plain, weighted = steps(chain()), steps(chain(model=ModelConfig(weights="ab" * 32)))
    assert weighted[0].step.model.weights == "ab" * 32
    assert weighted[1].step == plain[1].step
    assert weighted[1].key != plain[1].key  # through the parent


def test_an_unknown_class_is_answered_with_the_nearest():
    scenario = Scenario(dataset="pets", groups=(("cat", "chair"), ("cow", "hose")))
    with pytest.raises(PlanError, match="no class 'hose': did you mean 'horse'"):
        steps(chain(scenario=scenario))


def test_fewer_images_than_a_batch_are_refused():
    labels = LABELS.copy()
    labels[3:, 4] = False
    with pytest.raises(
        PlanError,
        match=r"step 2 \(horse\) finds \d training images in 'pets' under overlap, "
        "fewer than one batch of 4",
    ):
        steps(chain(), labels)


def test_a_single_new_class_from_image_labels_is_refused():
    weak = chain().scenario.model_copy(update={"supervision": "image"})
    with pytest.raises(ValidationError, match="step 2 brings a single class"):
        steps(chain(scenario=weak, method=wilson.Config()))


def test_images_are_kept_of_earlier_steps_and_never_twice():
    scenario = chain().scenario.model_copy(update={"memory": 4})
    base, second, third = steps(chain(scenario=scenario, method=fine_tuning.Config()))
    plain = steps(chain(method=fine_tuning.Config()))
    assert base == plain[0]
    for step, without, earlier in ((second, plain[1], [base]), (third, plain[2], [base, plain[1]])):
        selected, kept = np.split(step.rows, [step.step.task.images])
        assert selected.tolist() == without.rows.tolist()
        assert len(kept) == step.step.task.memory_images == 4
        assert step.step.task.memory == make_index(LABELS).selection_digest(kept)
        assert set(kept) <= {row for other in earlier for row in other.rows} - set(selected)
        assert LABELS[kept][:, [c - 1 for c in step.step.task.previous_classes]].any(1).all()
        assert step.key != without.key
    assert second.iterations == 2 * ((plain[1].step.task.images + 4) // 4)


def test_a_memory_is_refused_where_a_step_may_train_on_every_image_itself():
    labels = np.ones_like(LABELS)
    shared = {"setting": "overlap", "memory": 4}
    scenario = chain().scenario.model_copy(update=shared)
    with pytest.raises(PlanError, match=r"step 1 keeps no image .* scenario\.memory is 4: "):
        steps(chain(scenario=scenario, method=fine_tuning.Config()), labels)
    parted = scenario.model_copy(update={"setting": "partitioned"})
    assert steps(chain(scenario=parted, method=fine_tuning.Config()), labels)


def test_a_single_new_class_from_image_labels_is_trained_with_a_memory():
    weak = chain().scenario.model_copy(update={"supervision": "image", "memory": 4})
    *_, third = steps(chain(scenario=weak, method=wilson.Config()))
    assert third.step.task.new_classes == (5,)
    assert not LABELS[third.rows[third.step.task.images :], 4].any(), "a kept image is a negative"


def test_a_share_of_the_images_is_a_share_of_each_later_step():
    base, second, third = steps(chain())
    shared = chain().scenario.model_copy(update={"image_share": 0.5})
    same, *halves = steps(chain(scenario=shared))
    assert same == base
    for half, whole in zip(halves, (second, third), strict=True):
        assert len(half.rows) == half.step.task.images == round(len(whole.rows) / 2)
        assert set(half.rows) < set(whole.rows)


def test_all_at_once_is_one_step_of_all_groups_by_the_method_itself():
    class Joint(fine_tuning.Config):
        all_at_once: ClassVar[bool] = True

    (only,) = steps(chain(method=Joint(loss="bce")))
    assert only.step.task.groups == ((1, 2, 3, 4, 5),)
    assert only.step.method.model_dump() == fine_tuning.Config(loss="bce").model_dump()
    assert only.parent is None
    assert only.rows.tolist() == list(range(len(LABELS)))


def test_a_method_that_holds_on_to_weights_needs_step_0_to_say_which():
    with pytest.raises(PlanError, match=r"'ewc' holds on .* set base\.method\.importance"):
        steps(
            chain(
                method=ewc.Config(),
                optimization=Optimization(batch=4, epochs=2, encoder_lr=0.001, head_lr=0.001),
            )
        )


def test_what_step_0_records_is_in_its_key_and_serves_every_such_method():
    slow = Optimization(batch=4, epochs=2, encoder_lr=0.001, head_lr=0.001)
    recording = Base(
        method=fine_tuning.Config(importance=True), optimization=Optimization(batch=4, epochs=2)
    )
    bases = {
        steps(chain(method=method, base=recording, optimization=slow))[0].key
        for method in (ewc.Config(), pi.Config(), rw.Config())
    }
    assert len(bases) == 1
    assert steps(chain())[0].key not in bases


def test_joint_training_is_one_step_of_all_groups_trained_as_step_0_is():
    base = Base(optimization=Optimization(batch=4, epochs=3))
    for supervision in ("pixel", "image"):
        scenario = chain().scenario.model_copy(update={"supervision": supervision})
        (only,) = steps(chain(method=joint.Config(), base=base, scenario=scenario))
        assert only.step.task.groups == ((1, 2, 3, 4, 5),)
        assert only.step.task.supervision == "pixel"
        assert only.step.method == joint.Config()
        assert only.step.optimization == base.optimization
        assert len(only.rows) == len(LABELS)


def test_a_memory_beside_a_share_holds_no_image_of_the_new_classes():
    """Images outside the share show new classes, too. Kept, they would be labelled without them."""
    scenario = chain().scenario.model_copy(update={"image_share": 0.3, "memory": 50})
    for step in steps(chain(scenario=scenario, method=fine_tuning.Config()))[1:]:
        kept = step.rows[step.step.task.images :]
        assert len(kept)
        assert not LABELS[kept][:, np.asarray(step.step.task.new_classes) - 1].any()


@pytest.mark.parametrize("offer", [{"memory": 4}, {"labels": "seen"}])
def test_labels_of_previous_classes_are_refused_where_they_teach_nothing(offer: dict[str, Any]):
    scenario = chain().scenario.model_copy(update=offer)
    with pytest.raises(PlanError, match=r"scenario\.(memory|labels).*'mib' learns nothing from"):
        steps(chain(scenario=scenario))
    assert steps(chain(scenario=scenario, method=mib.Config(unbiased_cross_entropy=False)))
    assert steps(chain(scenario=scenario, method=fine_tuning.Config()))


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (plop.Config(pseudo_labels=False, published_median=True), r"method\.published_median"),
        (
            ewf.Config(trained_by=plop.Config(pseudo_labels=False, least_threshold=0.1)),
            r"method\.trained_by\.least_threshold is 0\.1",
        ),
        (wilson.Config(prior="constant", prior_weight=3), r"prior_weight is 3\.0.*'constant'"),
        (wilson.Config(affinity=False, affinity_iterations=3), "because affinity is False"),
        (offline.Config(background_threshold=0.5, pseudo_labels="single_stage"), "threshold"),
        (offline.Config(labels_alone_epochs=3), "because pseudo_labels is 'cam'"),
    ],
)
def test_a_field_that_another_switches_off_is_refused(method: MethodConfig, named: str):
    supervision = {"supervision": method.supervision}
    scenario = chain().scenario.model_copy(update=supervision)
    with pytest.raises(PlanError, match=named):
        steps(chain(scenario=scenario, method=method))


def test_dft_needs_a_reserved_channel_for_each_later_class():
    short = Base(method=fine_tuning.Config(reserved_channels=2), optimization=SMALL)
    with pytest.raises(PlanError, match=r"trains 2 channels .* base\.method\.reserved_channels 3"):
        steps(chain(method=dft.Config(), base=short))
    enough = Base(method=fine_tuning.Config(reserved_channels=3), optimization=SMALL)
    assert len(steps(chain(method=dft.Config(), base=enough))) == 3


def test_images_without_any_class_join_step_0_where_asked():
    labels = LABELS.copy()
    labels[[3, 30]] = False
    scenario = chain().scenario.model_copy(update={"empty_images": True})
    (without, *rest), (base, *same) = (
        steps(chain(), labels),
        steps(chain(scenario=scenario), labels),
    )
    assert sorted(set(base.rows) - set(without.rows)) == [3, 30]
    assert [step.rows.tolist() for step in same] == [step.rows.tolist() for step in rest]


def test_pixel_shares_stand_in_the_documents_of_steps_that_start_from_them():
    start = fine_tuning.Config(loss="bce", initial_probability="shares")
    later = icarl.Config(initial_probability=0.01)
    base, second, _ = steps(chain(base=Base(method=start, optimization=SMALL), method=later))
    pixels = make_index(LABELS).pixels[base.rows].sum(0)
    total = pixels.sum() + 2
    others = pixels[0] + pixels[3:].sum()
    expected = ((others + 1) / total, (pixels[1] + 1) / total, (pixels[2] + 1) / total)
    assert base.step.task.pixel_shares == expected
    assert second.step.task.pixel_shares is None
    plain, *_ = steps(chain(method=later))
    assert plain.step.task.pixel_shares is None


def test_a_weak_step_does_not_start_from_pixel_shares():
    weak = chain(method=wilson.Config(initial_probability="shares", warmup_epochs=1))
    scenario = weak.scenario.model_copy(update={"supervision": "image"})
    with pytest.raises(ValidationError, match=r"give method\.initial_probability one number"):
        steps(weak.model_copy(update={"scenario": scenario}))


def weak_chain(**scenario: Any) -> Chain:
    start: dict[str, Any] = {
        "dataset": "pets",
        "groups": (("cat", "chair", "cow"), ("dog", "horse")),
        "base_supervision": "image",
    }
    alone = wilson.Config(prior="constant", encoder_distillation=0, warmup_epochs=1)
    base = Base(method=alone, optimization=SMALL)
    method = wilson.Config(warmup_epochs=1)
    return chain(scenario=Scenario(**{**start, **scenario}), base=base, method=method)


def test_a_chain_can_be_weak_from_end_to_end():
    weak, later = steps(weak_chain())
    assert weak.step.task.supervision == later.step.task.supervision == "image"
    assert weak.step.method.name == "wilson"
    assert weak.parent is None
    assert weak_chain().scenario.title == "pets 3-2 overlap weak-start"


def test_step_0_has_the_labels_that_its_method_learns_from():
    with pytest.raises(ValidationError, match=r"step 0 has pixel labels .* scenario\.base_superv"):
        steps(weak_chain(base_supervision="pixel"))
    with pytest.raises(ValidationError, match="step 0 has image labels and 'fine-tuning' learns"):
        steps(weak_chain().model_copy(update={"base": Base(optimization=SMALL)}))
    with pytest.raises(ValidationError, match=r"step 0 brings a single class .*base_supervision"):
        steps(weak_chain(groups=(("cat",), ("dog", "horse"))))
