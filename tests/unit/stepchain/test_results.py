"""Published chains and steps are found with their scores and counts."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.store.base import Store
from stepchain import InputError, find_chain, find_step
from training.methods import lwf


def test_a_chain_has_its_steps_with_scores(store: Store, publish_chain):
    publish_chain(store, "demo")
    chain = find_chain(store, "demo")
    assert [step.index for step in chain.steps] == [0, 1]
    assert chain.scores("mib") == tuple(step.scores("mib") for step in chain.steps)
    assert chain.scores("mib") != chain.scores("wilson")
    assert chain.continual().backward_transfer is not None


def test_a_step_is_found_by_chain_and_by_key(store: Store, publish_chain):
    record = publish_chain(store, "demo")
    by_chain = find_step(store, "demo:1")
    by_key = find_step(store, record.steps[1][:8])
    assert by_chain.key == by_key.key == record.steps[1]
    assert by_chain.scores() == by_key.scores()
    assert by_chain.curves[0]["iteration"] == 10


def test_confusion_counts_are_plain_arrays_in_the_order_of_the_classes(store: Store, publish_chain):
    publish_chain(store, "demo")
    step = find_step(store, "demo:1")
    counts = step.confusion()
    assert counts.dtype == np.int64
    assert counts.shape == (len(step.class_names),) * 2
    assert next(iter(step.class_names.values())) == "background"
    accuracy = np.trace(counts) / counts.sum()
    assert accuracy == pytest.approx(step.scores().pixel_accuracy)


def test_a_model_without_background_names_and_counts_its_classes_alone(store: Store, publish_chain):
    publish_chain(store, "demo", method=lwf.Config())
    step = find_step(store, "demo:1")
    task = step.result.record.step.task.model_copy(update={"background": "none"})
    document = step.result.record.step.model_copy(update={"task": task})
    record = step.result.record.model_copy(update={"step": document})
    without = replace(step, result=replace(step.result, record=record))
    assert list(without.class_names) == list(step.class_names)[1:] == list(range(1, 11))
    assert without.confusion().shape == (10, 10)
    np.testing.assert_array_equal(without.confusion().diagonal(), step.confusion().diagonal()[1:])


@pytest.mark.parametrize("wanted", ["absent", "absent:0", "demo:2", "demo:x", "0123"])
def test_what_is_not_published_is_an_input_error(store: Store, publish_chain, wanted: str):
    publish_chain(store, "demo")
    with pytest.raises(InputError):
        find_step(store, wanted)


def test_a_chain_in_place_of_a_step_is_recognised(store: Store, publish_chain):
    publish_chain(store, "demo")
    with pytest.raises(InputError, match="of the chain, name a step, such as demo:0"):
        find_step(store, "demo")
