"""Return chains to start from, one function each: `python -m jobs.train PRESET`.

Every field of a chain can be overridden. The digits chains need no download and take a minute or
two on a laptop. The VOC, COCO and ADE chains have the settings of the papers, and the precision
bfloat16, which is for GPUs. `small_voc_wilson` is for photos on a CPU.
"""

from typing import Literal

from orchestrator.planning.chain import Base, Chain
from stepchain.architectures import DINOV2_BASE, SWIN_BASE
from stepchain.digits import (
    CROSS_ENTROPY,
    RARE,
    RARE_BCE,
    digits_dft,
    digits_finetuning,
    digits_lwf,
    digits_mib,
    digits_mib_swin,
    digits_ssul,
    digits_wilson,
)
from training.backbone import Backbone
from training.config import Augmentation, EvaluationConfig, MethodConfig, ModelConfig, Optimization
from training.data.voc import VOC_CLASSES
from training.methods import dft, fine_tuning, mib, plop, ssul, wilson
from training.protocols import coco_to_voc_groups
from training.scenario import Scenario, split_groups

BCE = fine_tuning.Config(loss="bce")  # how WILSON's step 0 is trained
# The network of the public code of WILSON, MiB and PLOP.
PUBLISHED_MODEL = ModelConfig(activation="leaky_relu", dilated_blocks="all")


def voc_wilson() -> Chain:
    """Return WILSON's 15-5 on PASCAL VOC 2012 + SBD, as the paper trains it."""
    return Chain(
        name="voc_wilson",
        scenario=Scenario(dataset="voc", groups=(VOC_CLASSES[:15], VOC_CLASSES[15:])),
        base=Base(method=BCE, optimization=_published(epochs=30)),
        method=wilson.Config(),
        optimization=_published(epochs=40, encoder_lr=0.001),
        model=PUBLISHED_MODEL,
    )


def voc_mib() -> Chain:
    """Return MiB's 15-5 on PASCAL VOC 2012 + SBD, as the paper trains it."""
    return _from_masks("voc_mib", "voc", split_groups("15-5", VOC_CLASSES), mib.Config())


def voc_mib_15_1() -> Chain:
    """Return MiB's 15-1 on PASCAL VOC 2012 + SBD, with the weight that its author names for it."""
    method = mib.Config(distillation_weight=100)
    return _from_masks("voc_mib_15_1", "voc", split_groups("15-1", VOC_CLASSES), method)


def voc_plop() -> Chain:
    """Return PLOP's 15-5 on PASCAL VOC 2012 + SBD, as its runs were: void is ignored.

    Its 10-1 has 10 epochs in each later step.
    """
    method = plop.Config(published_median=True)
    groups = split_groups("15-5", VOC_CLASSES)
    chain = _from_masks("voc_plop", "voc", groups, method, void="ignore")
    start = fine_tuning.Config(loss="cross_entropy", mean_over="all")
    return chain.model_copy(update={"base": chain.base.model_copy(update={"method": start})})


def voc_dft() -> Chain:
    """Return DFT* on 15-5 of PASCAL VOC 2012 + SBD, with the learning rates of its paper."""
    chain = _from_masks("voc_dft", "voc", split_groups("15-5", VOC_CLASSES), dft.Config())
    start = fine_tuning.Config(loss="cross_entropy", reserved_channels=5)
    first = _published(epochs=30, encoder_lr=0.02, head_lr=0.02)
    later = _published(epochs=30, encoder_lr=0.0005, head_lr=0.0005)
    return chain.model_copy(
        update={"base": Base(method=start, optimization=first), "optimization": later}
    )


def voc_ssul() -> Chain:
    """Return SSUL's 15-5 on PASCAL VOC 2012 + SBD with its settings, on the network of the others.

    Saliency maps are a companion layer: `--base.method.saliency NAME --method.saliency NAME`.
    """
    groups = split_groups("15-5", VOC_CLASSES)
    chain = _from_masks("voc_ssul", "voc", groups, ssul.Config(), void="ignore")
    first = _published(epochs=50, encoder_lr=0.001).model_copy(update={"batch": 32})
    return chain.model_copy(
        update={
            "base": Base(method=ssul.Config(), optimization=first),
            "optimization": first,
            "model": PUBLISHED_MODEL.model_copy(update={"classifier": "ssul"}),
            "augmentation": Augmentation(crop=513),
        }
    )


def ade_mib() -> Chain:
    """Return MiB's 100-50 on ADE20K with 60 epochs a step; its images are lists (--selections)."""
    # ADE's module imports OpenCV, which the other presets do not need.
    from training.data.ade import ADE_CLASSES

    groups = split_groups("100-50", ADE_CLASSES)
    return _from_masks("ade_mib", "ade", groups, mib.Config(), epochs=60)


def ade_plop() -> Chain:
    """Return PLOP's 100-50 on ADE20K with 60 epochs a step, scored by --convention plop_ade."""
    from training.data.ade import ADE_CLASSES

    groups = split_groups("100-50", ADE_CLASSES)
    method = plop.Config(pod_weight=0.001, pod_logits_weight=0.00001, published_median=True)
    return _from_masks("ade_plop", "ade", groups, method, epochs=60)


def voc_wilson_swin() -> Chain:
    """Return `voc_wilson` on Swin-B, whose last two maps the head reads; it is no paper's.

    SGD trains it as it trains all encoders here, at a tenth of a ResNet's learning rates.
    """
    chain = voc_wilson()
    base = chain.base.model_copy(update={"optimization": _published(epochs=30, encoder_lr=0.001)})
    swin = Backbone(architecture=SWIN_BASE, maps=("stage3", "stage4"))
    return chain.model_copy(
        update={
            "name": "voc_wilson_swin",
            "base": base,
            "optimization": _published(epochs=40, encoder_lr=0.0001),
            "model": ModelConfig(encoder="transformers", backbone=swin),
        }
    )


def voc_mib_dinov2() -> Chain:
    """Return `voc_mib` on a frozen DINOv2-B: only head and classifiers learn; it is no paper's."""
    chain = voc_mib()
    frozen = {"frozen": "encoder"}
    dinov2 = Backbone(architecture=DINOV2_BASE, maps=("stage12",))
    optimization = chain.base.optimization.model_copy(update=frozen)
    model = ModelConfig(encoder="transformers", backbone=dinov2, output_stride=14, eval_pooling=37)
    return chain.model_copy(
        update={
            "name": "voc_mib_dinov2",
            "base": chain.base.model_copy(update={"optimization": optimization}),
            "optimization": chain.optimization.model_copy(update=frozen),
            "model": model,
        }
    )


def coco_voc_wilson() -> Chain:
    """Return WILSON's COCO-to-VOC with the settings of its code.

    It is on ResNet-101, because the paper's Wide-ResNet-38 is not offered.
    """
    # COCO's module imports OpenCV, which the other presets do not need.
    from training.data.coco import COCO_CATEGORIES

    groups = coco_to_voc_groups(tuple(COCO_CATEGORIES.values()))
    return Chain(
        name="coco_voc_wilson",
        scenario=Scenario(dataset="coco_voc", groups=groups, setting="disjoint", empty_images=True),
        base=Base(method=BCE, optimization=_published(epochs=30)),
        method=wilson.Config(alpha=0.9),
        optimization=_published(epochs=30, encoder_lr=0.001),
        model=PUBLISHED_MODEL.model_copy(update={"eval_pooling": 28}),
        augmentation=Augmentation(crop=448),
    )


def small_voc_wilson() -> Chain:
    """Return five classes of VOC with masks, then three from image labels, small for a CPU."""
    return Chain(
        name="small_voc_wilson",
        scenario=Scenario(
            dataset="voc",
            groups=(("cat", "chair", "horse", "person", "sofa"), ("cow", "dog", "sheep")),
        ),
        base=Base(
            method=RARE_BCE,
            optimization=Optimization(epochs=3, batch=8, encoder_lr=0.001, head_lr=0.05),
        ),
        method=wilson.Config(
            initial_probability=RARE,
            background_mix=0.15,
            yield_to_previous=True,
            new_class_odds=3,
            warmup_epochs=1,
            localizer_lr=0.1,
        ),
        optimization=Optimization(epochs=3.95, batch=8, encoder_lr=0.0005, head_lr=0.02),
        model=ModelConfig(encoder="mobilenet_v2", encoder_norm="frozen", eval_pooling=14),
        augmentation=Augmentation(crop=224),
        evaluation=EvaluationConfig(short_side=240, crop=240),
    )


def _published(epochs: float, encoder_lr: float = 0.01, head_lr: float = 0.01) -> Optimization:
    """Return the papers' optimization, in the precision of GPUs that comes next to their own."""
    return Optimization(epochs=epochs, encoder_lr=encoder_lr, head_lr=head_lr, precision="bfloat16")


def _from_masks(
    name: str,
    dataset: str,
    groups: tuple[tuple[str, ...], ...],
    method: MethodConfig,
    epochs: float = 30,
    void: Literal["background", "ignore"] = "background",
) -> Chain:
    """Return a chain with masks in all steps and MiB's optimization, which PLOP shares."""
    return Chain(
        name=name,
        scenario=Scenario(dataset=dataset, groups=groups, supervision="pixel", void=void),
        base=Base(method=CROSS_ENTROPY, optimization=_published(epochs)),
        method=method,
        optimization=_published(epochs, encoder_lr=0.001, head_lr=0.001),
        model=PUBLISHED_MODEL,
    )


_FUNCTIONS = (
    digits_wilson,
    digits_mib,
    digits_lwf,
    digits_finetuning,
    digits_mib_swin,
    digits_dft,
    digits_ssul,
    voc_wilson,
    voc_wilson_swin,
    voc_mib,
    voc_mib_15_1,
    voc_mib_dinov2,
    voc_plop,
    voc_dft,
    voc_ssul,
    coco_voc_wilson,
    ade_mib,
    ade_plop,
    small_voc_wilson,
)
PRESETS = {preset.__name__: preset for preset in _FUNCTIONS}
