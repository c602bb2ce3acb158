"""Return chains on the digits scenes, one function each. They are presets (`stepchain.presets`)."""

from orchestrator.planning.chain import Base, Chain
from stepchain.architectures import DIGITS_SWIN
from training.backbone import Backbone
from training.config import Augmentation, EvaluationConfig, MethodConfig, ModelConfig, Optimization
from training.methods import dft, fine_tuning, lwf, mib, ssul, wilson
from training.scenario import Scenario

CROSS_ENTROPY = fine_tuning.Config(loss="cross_entropy")
# The probability that each channel starts at in presets that are no paper's. A binary cross-entropy
# that starts at 1/2 may stay on a plateau for as many epochs as these presets have.
RARE = 0.01
RARE_BCE = fine_tuning.Config(loss="bce", initial_probability=RARE)


def digits_wilson() -> Chain:
    """Return digits 0-5 with masks, then 6-9 from image labels alone, by WILSON."""
    method = wilson.Config(
        initial_probability=RARE, warmup_epochs=2, localizer_channels=64, localizer_lr=0.1
    )
    return _digits("digits_wilson", method, RARE_BCE)


def digits_mib() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, by MiB."""
    return _digits("digits_mib", mib.Config())


def digits_lwf() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, by learning without forgetting."""
    return _digits("digits_lwf", lwf.Config())


def digits_finetuning() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, with nothing against forgetting."""
    return _digits("digits_finetuning", fine_tuning.Config())


def digits_mib_swin() -> Chain:
    """Return `digits_mib` on a small Swin with random weights, of the library Transformers."""
    chain = digits_mib()
    swin = Backbone(architecture=DIGITS_SWIN, maps=("stage1", "stage2"))
    model = ModelConfig(
        encoder="transformers", backbone=swin, output_stride=4, head_channels=32, eval_pooling=16
    )
    return chain.model_copy(update={"name": "digits_mib_swin", "model": model})


def digits_dft() -> Chain:
    """Return digits 0-5, then 6-9, both with masks; only the newest classifier learns, by DFT*."""
    return _digits("digits_dft", dft.Config(), fine_tuning.Config(reserved_channels=4))


def digits_ssul() -> Chain:
    """Return digits 0-5, then 6-9, both with masks, by SSUL with the layer `saliency`."""
    chain = _digits("digits_ssul", ssul.Config(saliency="saliency"))
    start = ssul.Config(saliency="saliency", initial_probability=RARE)
    base = chain.base.model_copy(update={"method": start})
    model = chain.model.model_copy(update={"classifier": "ssul"})
    return chain.model_copy(update={"base": base, "model": model})


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
