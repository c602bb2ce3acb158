"""How much do results vary over seeds? Digits 0-5, then 6-9, by LwF, MiB and WILSON.

Every method runs with five seeds.

    python -m jobs.campaign run digits_seeds

25 steps instead of 30: LwF and MiB share their step 0, seed by seed. All of them are steps of
`digits_methods`, which records importance in step 0. The twin of `seeds`, in minutes on a CPU.
"""

from stepchain import Chain, FineTuning, LwF, MiB, digits_mib, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44, 45, 46)


def chains() -> tuple[Chain, ...]:
    from_masks = with_field(digits_mib(), "name", "digits_seeds")
    from_masks = with_field(from_masks, "base.method", FineTuning(importance=True))
    weak = with_field(digits_wilson(), "name", "digits_seeds method=wilson")
    return *sweep(from_masks, {"method": (LwF(), MiB()), "seed": SEEDS}), *sweep(
        weak, {"seed": SEEDS}
    )
