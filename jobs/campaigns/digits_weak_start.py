"""Can a chain be weak from end to end? Digits 0-5, then 6-9, no mask in any step.

Step 0 learns digits 0-5 from masks, or from image labels by WILSON's localizer or the offline route
without a previous model. Step 1 is WILSON's or the offline route's, from image labels in any case.
Every chain runs with five seeds.

    python -m jobs.campaign run digits_weak_start

45 steps instead of 60: each step 0 serves both methods of step 1. A step 0 from image labels has
twice the epochs, half of them for localizer or classifier, because its encoder starts from random
weights. The twin of `weak_start`; a step takes one to three minutes on a CPU.
"""

from jobs.campaigns.weak_start import crossed
from stepchain import WILSON, Chain, Offline, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)
# The start of every binary cross-entropy in the digits presets.
RARE = 0.01
WEAK_STARTS = {
    "wilson": WILSON(
        initial_probability=RARE,
        prior="constant",
        encoder_distillation=0,
        warmup_epochs=8,
        localizer_channels=64,
        localizer_lr=0.1,
    ),
    "offline": Offline(
        initial_probability=RARE,
        pseudo_labels="single_stage",
        classifier_epochs=10,
        classifier_lr=0.1,
    ),
}
OFFLINE = Offline(
    initial_probability=RARE, pseudo_labels="single_stage", classifier_epochs=5, classifier_lr=0.1
)


def chains() -> tuple[Chain, ...]:
    starts = {"masks": with_field(digits_wilson(), "name", "digits_weak_start")}
    for name, method in WEAK_STARTS.items():
        weak = with_field(starts["masks"], "scenario.base_supervision", "image")
        weak = with_field(weak, "base.method", method)
        weak = with_field(weak, "base.optimization.epochs", 20)
        weak = with_field(weak, "base.optimization.encoder_lr", 0.05)
        starts[name] = with_field(weak, "base.optimization.head_lr", 0.1)
    methods = {"wilson": starts["masks"].method, "offline": OFFLINE}
    return tuple(
        chain for each in crossed(starts, methods) for chain in sweep(each, {"seed": SEEDS})
    )
