"""How much do results vary over seeds? Digits 0-5, then 6-9, by LwF, MiB and WILSON.

Every method runs with three seeds.

    python -m jobs.campaign run digits_seeds

15 steps instead of 18: LwF and MiB share their step 0, seed by seed. The twin of `seeds`, in
minutes on a CPU.
"""

from stepchain import Chain, LwF, MiB, digits_mib, digits_wilson, sweep, with_field

SEEDS = (42, 43, 44)


def chains() -> tuple[Chain, ...]:
    from_masks = with_field(digits_mib(), "name", "digits_seeds")
    weak = with_field(digits_wilson(), "name", "digits_seeds method=wilson")
    return *sweep(from_masks, {"method": (LwF(), MiB()), "seed": SEEDS}), *sweep(
        weak, {"seed": SEEDS}
    )
