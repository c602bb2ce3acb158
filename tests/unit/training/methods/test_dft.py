"""Check DFT's softmax over all steps' channels, what learns, and what it hands on."""

import numpy as np
import torch

from tests.support.methods import START, build_batch, build_method, build_step
from training.iteration import place
from training.methods import dft, fine_tuning


def test_the_softmax_has_the_channels_of_earlier_and_later_steps() -> None:
    document = build_step(dft.Config())
    method = build_method(document)
    batch = build_batch(document)
    batch.masks[0, :5] = 255
    place(method, torch.device("cpu"))
    total = pixels = 0.0
    with torch.no_grad():
        head = method.model(batch.images).head
        rows = [c.state_dict() for c in method.model.classifiers]
        weight = torch.cat([r["weight"] for r in rows] + [method.inherited["reserved.weight"][2:]])
        bias = torch.cat([r["bias"] for r in rows] + [method.inherited["reserved.bias"][2:]])
        scores = torch.einsum("bdhw,cd->bchw", head, weight[:, :, 0, 0]) + bias[:, None, None]
        size = batch.masks.shape[-2:]
        maps = torch.nn.functional.interpolate(scores, size, mode="bilinear").numpy()
    assert maps.shape[1] == 4 + 2 + 2
    for image, mask in zip(maps, batch.masks.numpy(), strict=True):
        for row, column in zip(*np.nonzero(mask != 255), strict=True):
            at = image[:, row, column]
            total += np.log(np.exp(at).sum()) - at[mask[row, column]]
            pixels += 1
    found = method(batch, START)["segmentation"].item()
    np.testing.assert_allclose(found, total / pixels, rtol=1e-9)


def test_the_newest_classifier_starts_as_the_reserved_channels_and_learns_alone() -> None:
    document = build_step(dft.Config())
    method = place(build_method(document), torch.device("cpu"))
    newest = method.model.classifiers[-1].state_dict()
    for name in ("weight", "bias"):
        torch.testing.assert_close(newest[name], method.inherited[f"reserved.{name}"][:2])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(build_batch(document), START)["segmentation"].backward()
    learning = {name for name, value in method.named_parameters() if value.grad is not None}
    assert learning == {"model.classifiers.1.weight", "model.classifiers.1.bias"}
    after = method.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "statistics"


def test_what_is_left_of_the_reserved_channels_goes_on_until_none_is() -> None:
    left = build_method(build_step(dft.Config())).carried()
    assert {name: len(value) for name, value in left.items()} == {
        "reserved.weight": 2,
        "reserved.bias": 2,
    }
    document = build_step(dft.Config())
    method = build_method(document)
    last = dft.Method(document, method.previous, inherited=left).double()
    assert last.carried() == {}
    assert last(build_batch(document), START)["segmentation"].isfinite()


def test_step_0_trains_the_reserved_channels_and_hands_them_on() -> None:
    document = build_step(fine_tuning.Config(reserved_channels=3), groups=((1, 2),))
    method = build_method(document)
    method(build_batch(document), START)["segmentation"].backward()
    trained = {p for group in method.parameter_groups() for p in group["params"]}
    assert trained == set(method.parameters())
    carried = method.carried()
    assert carried["reserved.weight"].shape == (3, 8, 1, 1)
    gradient = method.get_parameter("reserved.bias").grad
    assert gradient is not None
    assert (gradient > 0).all(), "no pixel has these channels"
