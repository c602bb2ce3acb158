"""Presets have the papers' settings, or say how they depart from them."""

import json

import pytest

from stepchain.presets import PRESETS
from training.binary_method import BinaryMethodConfig
from training.config import InputError
from training.encoder_check import check_encoder
from training.models.library import check_complete, complete_architecture

OF_PAPERS = (
    "voc_wilson",
    "voc_mib",
    "voc_mib_15_1",
    "voc_plop",
    "voc_dft",
    "voc_ssul",
    "coco_voc_wilson",
    "ade_mib",
    "ade_plop",
)
# For GPUs too, but no paper's.
ON_OTHER_ENCODERS = ("voc_wilson_swin", "voc_mib_dinov2")
FOR_GPUS = OF_PAPERS + ON_OTHER_ENCODERS


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_block_of_a_dilated_stage_has_its_dilation(name: str) -> None:
    assert PRESETS[name]().model.dilated_blocks == "all"


@pytest.mark.parametrize("name", PRESETS)
def test_a_binary_loss_starts_as_in_the_papers_or_where_classes_are_rare(name: str) -> None:
    chain = PRESETS[name]()
    methods = [chain.base.method, chain.method]
    binary = [m for m in methods if isinstance(m, BinaryMethodConfig) and m.is_binary]
    starts = {method.initial_probability for method in binary}
    assert starts <= ({None} if name in FOR_GPUS else {0.01})


def test_mibs_15_1_has_the_weight_that_its_author_names() -> None:
    chain = PRESETS["voc_mib_15_1"]()
    assert dict(chain.method)["distillation_weight"] == 100
    assert [len(group) for group in chain.scenario.groups] == [15, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "void", "epochs", "weights"),
    [("voc_plop", "ignore", 30, (0.01, 0.0005)), ("ade_plop", "background", 60, (0.001, 1e-5))],
)
def test_plop_has_the_settings_of_its_runs(
    name: str, void: str, epochs: float, weights: tuple[float, float]
) -> None:
    chain = PRESETS[name]()
    method = dict(chain.method)
    assert method["published_median"]
    assert (method["pod_weight"], method["pod_logits_weight"]) == weights
    assert chain.scenario.void == void
    assert (chain.base.optimization.epochs, chain.optimization.epochs) == (epochs, epochs)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_papers_train_in_the_half_precision_of_gpus(name: str) -> None:
    chain = PRESETS[name]()
    wanted = "bfloat16" if name in FOR_GPUS else "float32"
    assert chain.base.optimization.precision == chain.optimization.precision == wanted


@pytest.mark.parametrize("name", ["digits_mib_swin", *ON_OTHER_ENCODERS])
def test_encoders_of_transformers_are_named_completely(name: str) -> None:
    pytest.importorskip("transformers")
    model = PRESETS[name]().model
    assert model.backbone is not None
    check_encoder(model)
    check_complete(model.backbone.architecture)


def test_an_architecture_within_an_architecture_names_what_decides_and_no_more() -> None:
    transformers = pytest.importorskip("transformers")
    own = transformers.Sapiens2Config(head_config={"upsample_out_channels": [8], "id2label": {}})
    complete = complete_architecture(own.to_dict())
    assert complete["head_config"]["upsample_out_channels"] == [8]
    assert not {"id2label", "dtype", "architectures"} & set(complete["head_config"])
    check_complete(json.loads(json.dumps(complete)))


def test_an_architecture_that_is_not_what_the_library_has_is_one_sentence() -> None:
    pytest.importorskip("transformers")
    complete = complete_architecture({"model_type": "swin"})
    with pytest.raises(InputError, match=r"has no 'wings' in the architecture 'swin'"):
        check_complete(complete | {"wings": 2})
    del complete["mlp_ratio"]
    with pytest.raises(InputError, match=r"lacks 'mlp_ratio', for which .* would take 4\.0"):
        check_complete(complete)
