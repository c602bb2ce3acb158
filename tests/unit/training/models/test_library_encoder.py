"""Encoders of Transformers compute what that library does, for images of any size."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from tests.support.encoders import SMALL, small_backbone, small_model
from training.backbone import Backbone
from training.config import InputError, ModelConfig
from training.encoder_check import check_encoder
from training.models.backbones import build_encoder
from training.models.library_encoder import LibraryEncoder, layout_of
from training.models.segmenter import Segmenter, normalise

transformers = pytest.importorskip("transformers")
KINDS = sorted(SMALL)


def encoder_of(kind: str, *maps: str) -> LibraryEncoder:
    torch.manual_seed(0)
    return LibraryEncoder(small_backbone(kind, *maps))


def by_the_library(
    kind: str, encoder: LibraryEncoder, maps: list[str], images: Tensor
) -> list[Tensor]:
    """Return the maps of AutoBackbone with the encoder's weights, without any code of ours."""
    configuration = transformers.AutoConfig.for_model(kind, **SMALL[kind], out_features=maps)
    library = transformers.AutoBackbone.from_config(configuration)
    own = library.state_dict()
    state = {n: v for n, v in encoder.library.state_dict().items() if n in own}
    library.load_state_dict(state)
    with torch.no_grad():
        return list(library.eval()(images).feature_maps)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_library_also_in_training(kind: str) -> None:
    encoder = encoder_of(kind)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.2)  # what starts as 0 or 1 must matter, too
    images = torch.randn(2, 3, 448, 224)
    last = list(encoder.maps)
    (expected,) = by_the_library(kind, encoder, last, images)
    torch.testing.assert_close(encoder.train()(images), expected)
    features, levels = encoder.stages(images)
    torch.testing.assert_close(features, expected)
    names = list(encoder.layout.levels)
    for level, other in zip(levels, by_the_library(kind, encoder, names, images), strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(57, 33), (100, 131), (64, 64)])
def test_images_of_any_size_get_a_whole_map(kind: str, size: tuple[int, int]) -> None:
    encoder = encoder_of(kind)
    stride = encoder.layout.stride
    features = encoder(torch.randn(1, 3, *size))
    cells = tuple(-(-side // stride) for side in size)
    assert features.shape == (1, encoder.channels, *cells)


def test_a_crop_of_512_is_enlarged_to_518_at_patch_14() -> None:
    encoder = encoder_of("dinov2")
    images = torch.randn(1, 3, 512, 512)
    enlarged = nn.functional.interpolate(images, (518, 518), mode="bilinear", align_corners=False)
    (expected,) = by_the_library("dinov2", encoder, ["stage6"], enlarged)
    assert expected.shape[-2:] == (37, 37)
    torch.testing.assert_close(encoder(images), expected)


def test_several_maps_are_joined_at_the_finest_resolution() -> None:
    encoder = encoder_of("swin", "stage3", "stage4")
    images = torch.randn(1, 3, 64, 96)
    third, fourth = by_the_library("swin", encoder, ["stage3", "stage4"], images)
    fourth = nn.functional.interpolate(
        fourth, third.shape[-2:], mode="bilinear", align_corners=False
    )
    assert (encoder.layout.stride, encoder.channels) == (16, 32 + 64)
    torch.testing.assert_close(encoder(images), torch.cat([third, fourth], 1))
    assert encoder(torch.randn(1, 3, 70, 70)).shape[-2:] == (5, 5)


def test_levels_are_stages_or_evenly_spaced_layers() -> None:
    assert layout_of(small_backbone("swin")).levels == ("stage1", "stage2", "stage3", "stage4")
    assert layout_of(small_backbone("swin", "stage2")).levels == ("stage1", "stage2")
    assert layout_of(small_backbone("dinov2")).levels == ("stage1", "stage3", "stage4", "stage6")


@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_weight_gets_a_gradient(kind: str) -> None:
    encoder = encoder_of(kind)
    encoder(torch.randn(1, 3, 64, 64)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_images_are_normalised_by_the_encoder_s_own_colours() -> None:
    backbone = small_backbone("pvt_v2")
    own = backbone.model_copy(update={"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)})
    torch.manual_seed(0)
    plain = LibraryEncoder(backbone).double()
    restated = LibraryEncoder(own).double()
    restated.load_state_dict(plain.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (own.mean, own.std))
    expected = plain((pixels / 255 - mean) / std)
    torch.testing.assert_close(
        restated(normalise(pixels, torch.float64)), expected, rtol=1e-6, atol=1e-7
    )


def test_an_encoder_s_layout_draws_no_random_numbers() -> None:
    layout_of.cache_clear()
    torch.manual_seed(3)
    build_encoder(small_model("swin"))
    first = torch.rand(1)
    torch.manual_seed(3)
    build_encoder(small_model("swin"))
    assert torch.rand(1) == first


def test_a_linear_head_normalises_the_features() -> None:
    model = Segmenter(small_model("dinov2", head="linear", head_channels=16), (3, 2))
    outputs = model(torch.randn(2, 3, 56, 56))
    mean, std = outputs.features.mean((0, 2, 3)), outputs.features.std((0, 2, 3), correction=0)
    expected = (outputs.features - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(outputs.head, expected, rtol=1e-3, atol=1e-3)
    assert outputs.logits.shape == (2, 5, 4, 4)
    with pytest.raises(InputError, match=r"16 channels: set model\.head_channels to 16"):
        Segmenter(small_model("dinov2", head="linear"), (3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_stride": 16}, r"cells of 14 pixels: set model\.output_stride to 14"),
        ({"backbone": None}, r"give --encoder-weights FOLDER"),
        ({"encoder": "resnet50"}, r"has no model\.backbone"),
        ({"encoder_norm": "frozen"}, r"no batch norms"),
        ({"head": "linear", "eval_pooling": 4}, r"set model\.eval_pooling to none"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_encoder(small_model("dinov2").model_copy(update=change))


@pytest.mark.parametrize(
    ("architecture", "maps", "message"),
    [
        ({"model_type": "hologram"}, "stage1", r"has no backbone 'hologram': it has beit, bit"),
        ({"model_type": "timm_backbone"}, "stage1", r"names no maps of 'timm_backbone': it has b"),
        ({"model_type": "tipsv2"}, "stage1", r"names no maps of 'tipsv2': .*, swinv2, textnet, ti"),
        ({"model_type": "resnet"}, "stage4", r"batch norms, whose statistics"),
        ({"model_type": "swin", "depths": [1, 1]}, "stage4", r"has no map 'stage4'"),
        ({"model_type": "hiera"}, "stage4", r"takes no images of 448 x 672"),
        ({"model_type": "swin", "embed_dim": "wide"}, "stage4", r"refuses this encoder"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(architecture: dict, maps: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        layout_of(Backbone(architecture=architecture, maps=(maps,)))


def test_documents_without_a_backbone_keep_their_json() -> None:
    from orchestrator.store.canonical import canonical_json

    assert b"backbone" not in canonical_json(ModelConfig())
    model = small_model("dinov2")
    assert b'"patch_size":14' in canonical_json(model)
    assert ModelConfig.model_validate_json(model.model_dump_json()) == model
    assert hash(model) == hash(ModelConfig.model_validate(model.model_dump()))


def test_without_the_extra_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    layout_of.cache_clear()
    with pytest.raises(InputError, match=r"run pip install 'stepchain\[encoders\]'$"):
        check_encoder(small_model("swin"))


def test_nothing_else_imports_the_library() -> None:
    code = """
import sys
import jobs.train, stepchain.encoders, training.fit
from stepchain.presets import PRESETS
from training.models.backbones import build_encoder
[preset() for preset in PRESETS.values()]
build_encoder(PRESETS["digits_mib"]().model)
sys.exit("transformers" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
