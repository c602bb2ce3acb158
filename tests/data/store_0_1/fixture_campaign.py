"""How hard should the pseudo-supervision of a tiny WILSON be?

The campaign of the store in `store`, as a file of version 0.1.0: six chains, of which three are published whole.
"""

from orchestrator.campaign import sweep
from orchestrator.chain import Base, Chain
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.methods import fine_tuning, wilson
from training.scenario import Scenario

FEW = Optimization(epochs=200, batch=4, encoder_lr=0.1, head_lr=0.2)


def start() -> Chain:
    """Digits 4-6 with masks, then 2, 7 and 9 from image labels; everything as small as it can be."""
    return Chain(
        name="wilson",
        scenario=Scenario(dataset="digits", groups=(("4", "5", "6"), ("2", "7", "9"))),
        base=Base(method=fine_tuning.Config(loss="bce"), optimization=FEW),
        method=wilson.Config(warmup_epochs=40, localizer_channels=8, localizer_lr=0.1),
        optimization=FEW,
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=16),
        augmentation=Augmentation(crop=64, scale=(0.7, 1.0), flip=False),
        evaluation=EvaluationConfig(short_side=None, crop=None),
    )


def chains() -> tuple[Chain, ...]:
    return sweep(start(), {"method.alpha": (0, 0.5, 1), "seed": (1, 2)})
