"""Return chains to start from, one function each: `python -m jobs.train PRESET`.

Every field of a chain can be overridden. The digits chains need no download and take a minute or
two on a laptop. The VOC chains have the settings of the papers. `small_voc_wilson` is for photos
on a CPU.
"""

from orchestrator.planning.chain import Base, Chain
from training.config import Augmentation, EvaluationConfig, MethodConfig, ModelConfig, Optimization
from training.data.voc import VOC_CLASSES
from training.methods import fine_tuning, lwf, mib, wilson
from training.protocols import coco_to_voc_groups
from training.scenario import Scenario

CROSS_ENTROPY = fine_tuning.Config(loss="cross_entropy")
BCE = fine_tuning.Config(loss="bce")  # how WILSON's step 0 is trained


def digits_wilson() -> Chain:
    """Return digits 0-5 with masks, then 6-9 from image labels alone, by WILSON."""
    method = wilson.Config(warmup_epochs=2, localizer_channels=64, localizer_lr=0.1)
    return _digits("digits_wilson", method, BCE)


def digits_mib() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, by MiB."""
    return _digits("digits_mib", mib.Config())


def digits_lwf() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, by learning without forgetting."""
    return _digits("digits_lwf", lwf.Config())


def digits_finetuning() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, with nothing against forgetting."""
    return _digits("digits_finetuning", fine_tuning.Config())


def voc_wilson() -> Chain:
    """Return WILSON's 15-5 on PASCAL VOC 2012 + SBD, as the paper trains it."""
    return Chain(
        name="voc_wilson",
        scenario=Scenario(dataset="voc", groups=(VOC_CLASSES[:15], VOC_CLASSES[15:])),
        base=Base(method=BCE, optimization=Optimization(epochs=30)),
        method=wilson.Config(),
        optimization=Optimization(epochs=40, encoder_lr=0.001),
        model=ModelConfig(activation="leaky_relu"),
    )


def voc_mib() -> Chain:
    """Return MiB's 15-5 on PASCAL VOC 2012 + SBD, as the paper trains it."""
    return Chain(
        name="voc_mib",
        scenario=Scenario(
            dataset="voc", groups=(VOC_CLASSES[:15], VOC_CLASSES[15:]), supervision="pixel"
        ),
        base=Base(method=CROSS_ENTROPY, optimization=Optimization(epochs=30)),
        method=mib.Config(),
        optimization=Optimization(epochs=30, encoder_lr=0.001, head_lr=0.001),
        model=ModelConfig(activation="leaky_relu"),
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
        base=Base(method=BCE, optimization=Optimization(epochs=30)),
        method=wilson.Config(alpha=0.9),
        optimization=Optimization(epochs=30, encoder_lr=0.001),
        model=ModelConfig(activation="leaky_relu", eval_pooling=28),
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
            method=BCE,
            optimization=Optimization(epochs=6, batch=16, encoder_lr=0.001, head_lr=0.05),
        ),
        method=wilson.Config(alpha=0, background_mix=0.15, warmup_epochs=2, localizer_lr=0.1),
        optimization=Optimization(epochs=7.9, batch=16, encoder_lr=0.0005, head_lr=0.02),
        model=ModelConfig(encoder="mobilenet_v2", encoder_norm="frozen", eval_pooling=8),
        augmentation=Augmentation(crop=128),
        evaluation=EvaluationConfig(short_side=128, crop=128),
    )


def _digits(name: str, method: MethodConfig, base: fine_tuning.Config = CROSS_ENTROPY) -> Chain:
    digits = tuple("0123456789")
    return Chain(
        name=name,
        scenario=Scenario(
            dataset="digits", groups=(digits[:6], digits[6:]), supervision=method.supervision
        ),
        base=Base(
            method=base, optimization=Optimization(epochs=10, batch=16, encoder_lr=0.2, head_lr=0.2)
        ),
        method=method,
        optimization=Optimization(epochs=10, batch=16, encoder_lr=0.05, head_lr=0.1),
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=32, eval_pooling=16),
        augmentation=Augmentation(crop=64, scale=(0.7, 1.0), flip=False),
        evaluation=EvaluationConfig(short_side=None, crop=None),
    )


_FUNCTIONS = (
    digits_wilson,
    digits_mib,
    digits_lwf,
    digits_finetuning,
    voc_wilson,
    voc_mib,
    coco_voc_wilson,
    small_voc_wilson,
)
PRESETS = {preset.__name__: preset for preset in _FUNCTIONS}
