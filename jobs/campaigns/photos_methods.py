"""Which method keeps old classes and learns new ones best? Small photos of VOC, five methods.

Five classes are learned from masks, then three: by fine-tuning, MiB and PLOP from masks, by the
offline route and WILSON from image labels alone. Every method runs with five seeds.

    python -m jobs.campaign run photos_methods --encoder-weights PATH --cpus-per-worker 1

35 steps instead of 50: two kinds of step 0 serve all methods, one trained with cross-entropy and
one, which photos_alpha trains, too, with binary cross-entropy. On 1,500 photos a step takes three
to five minutes on a core. `--only seed=42` runs a single seed.

All have the learning rates, epochs and images of the preset small_voc_wilson, and nothing was tuned
but WILSON. The offline classifier has the epochs that WILSON's localizer learns alone.
"""

from stepchain import (
    PLOP,
    Chain,
    FineTuning,
    MiB,
    Offline,
    small_voc_wilson,
    sweep,
    with_field,
)

FROM_MASKS = (FineTuning(), MiB(), PLOP())
SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    weak = with_field(small_voc_wilson(), "name", "photos_methods")
    from_masks = with_field(weak, "scenario.supervision", "pixel")
    from_masks = with_field(from_masks, "base.method", FineTuning())
    offline = Offline(initial_probability=0.01, classifier_epochs=1, classifier_lr=0.1)
    return (
        *sweep(from_masks, {"method": FROM_MASKS, "seed": SEEDS}),
        *sweep(weak, {"method": {"offline": offline, "wilson": weak.method}, "seed": SEEDS}),
    )
