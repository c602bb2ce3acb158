"""Which method keeps old classes and learns new ones best? Digits 0-5, then 6-9, all methods.

Every method runs with three seeds.

    python -m jobs.campaign run digits_methods

54 steps instead of 93: two kinds of step 0 serve all methods, seed by seed. One is trained with
cross-entropy and records importance for EWC, PI and RW, which changes nothing of its weights; the
other with binary cross-entropy. The twin of `methods`: half a minute to a minute a step on a CPU.

All is as the digits presets have it, and nothing was tuned, but for two things. The penalties of
EWC, PI and RW weigh 5, 5 and 2.5 instead of 500, 500 and 100: learning rates are 50 to 100 times
higher here than on VOC, and above 6.8 (RW: 3.4) training would diverge. The offline classifiers
have half of the epochs, and the learning rate of WILSON's localizer.

The order that the papers report: fine-tuning far below LwF, that below MiB and PLOP, all below
joint training; from image labels WILSON above the offline routes and above its own variants with
hard pseudo-supervision and a prior by softmax.
"""

from stepchain import (
    EWC,
    ILT,
    PI,
    PLOP,
    RW,
    Chain,
    FineTuning,
    ICaRL,
    Joint,
    LwF,
    LwFMC,
    MiB,
    Offline,
    digits_mib,
    digits_wilson,
    sweep,
    with_field,
)

SEEDS = (42, 43, 44)
FROM_MASKS = (
    Joint(),
    FineTuning(),
    LwF(),
    ILT(),
    EWC(weight=5),
    PI(weight=5),
    RW(weight=2.5),
    MiB(),
    PLOP(),
)
BINARY_FROM_MASKS = (LwFMC(), ICaRL())


def chains() -> tuple[Chain, ...]:
    weak = with_field(digits_wilson(), "name", "digits_methods")
    from_masks = with_field(digits_mib(), "name", "digits_methods")
    from_masks = with_field(from_masks, "base.method", FineTuning(importance=True))
    from_image_labels = {
        "wilson": weak.method,
        "wilson alpha=1": with_field(weak.method, "alpha", 1),
        "wilson prior=softmax_ce": with_field(weak.method, "prior", "softmax_ce"),
        "offline cam": Offline(classifier_epochs=5, classifier_lr=0.1),
        "offline single_stage": Offline(
            pseudo_labels="single_stage", classifier_epochs=5, classifier_lr=0.1
        ),
    }
    return (
        *sweep(from_masks, {"method": FROM_MASKS, "seed": SEEDS}),
        *sweep(
            with_field(from_masks, "base.method", FineTuning(loss="bce")),
            {"method": BINARY_FROM_MASKS, "seed": SEEDS},
        ),
        *sweep(weak, {"method": from_image_labels, "seed": SEEDS}),
    )
