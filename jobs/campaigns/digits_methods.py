"""Which method keeps old classes and learns new ones best? Digits 0-5, then 6-9, all methods.

Every method runs with five seeds.

    python -m jobs.campaign run digits_methods

135 steps instead of 225: two kinds of step 0 serve most methods, seed by seed. One is trained with
cross-entropy and records importance for EWC, PI and RW, which changes nothing of its weights; the
other with binary cross-entropy. DFT and SSUL have a step 0 of their own, which SSUL with and
without a memory share. The twin of `methods`: half a minute to a minute a step on a CPU.

All is as the digits presets have it, and nothing was tuned, but for two things. SSUL reads the
layer `saliency`, which `jobs.ingest digits` makes; a memory is ten images a class. The penalties of
EWC, PI and RW weigh 5, 5 and 2.5 instead of 500, 500 and 100: learning rates are 50 to 100 times
higher here than on VOC, and above 6.8 (RW: 3.4) training would diverge. The offline classifiers
have half of the epochs, and the learning rate of WILSON's localizer.

The order that the papers report: fine-tuning far below LwF, that below MiB and PLOP, all below
joint training; from image labels WILSON above the offline routes and above its own variants with
hard pseudo-supervision and a prior by softmax.
"""

from stepchain import (
    EWC,
    EWF,
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
    MiBAugM,
    Offline,
    digits_dft,
    digits_mib,
    digits_ssul,
    digits_wilson,
    sweep,
    with_field,
)

SEEDS = (42, 43, 44, 45, 46)
MEMORY = 60  # images, 10 a class
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
FUSED = {"ewf of mib": EWF(trained_by=MiB()), "ewf of plop": EWF(trained_by=PLOP())}
# The start of every binary cross-entropy in the digits presets.
RARE = 0.01


def chains() -> tuple[Chain, ...]:
    weak = with_field(digits_wilson(), "name", "digits_methods")
    from_masks = with_field(digits_mib(), "name", "digits_methods")
    from_masks = with_field(from_masks, "base.method", FineTuning(importance=True))
    binary_base = FineTuning(loss="bce", initial_probability=RARE)
    binary = with_field(from_masks, "base.method", binary_base)
    wilson_from_masks = with_field(weak, "scenario.supervision", "pixel")
    lwf_mc = LwFMC(initial_probability=RARE)
    icarl = ICaRL(initial_probability=RARE, encoder_distillation=1)
    offline = Offline(initial_probability=RARE, classifier_epochs=5, classifier_lr=0.1)
    from_image_labels = {
        "wilson": weak.method,
        "wilson alpha=1": with_field(weak.method, "alpha", 1),
        "wilson prior=softmax_ce": with_field(weak.method, "prior", "softmax_ce"),
        "offline cam": offline,
        "offline single_stage": with_field(offline, "pseudo_labels", "single_stage"),
    }
    frozen = (digits_dft(), digits_ssul(), with_memory(digits_ssul()))
    replayed = with_memory(from_masks)
    return (
        *sweep(from_masks, {"method": FROM_MASKS, "seed": SEEDS}),
        *sweep(from_masks, {"method": FUSED, "seed": SEEDS}),
        *sweep(replayed, {"method": (FineTuning(), MiBAugM()), "seed": SEEDS}),
        *(chain for start in frozen for chain in sweep(named(start), {"seed": SEEDS})),
        *sweep(binary, {"method": (lwf_mc,), "seed": SEEDS}),
        *sweep(wilson_from_masks, {"method": (icarl,), "seed": SEEDS}),
        *sweep(weak, {"method": from_image_labels, "seed": SEEDS}),
    )


def with_memory(chain: Chain) -> Chain:
    """Return the chain with kept images."""
    return with_field(
        with_field(chain, "scenario.memory", MEMORY), "name", f"{chain.name} memory={MEMORY}"
    )


def named(chain: Chain) -> Chain:
    """Return the chain with a name of this campaign."""
    kept = f" memory={chain.scenario.memory}" if chain.scenario.memory else ""
    return with_field(chain, "name", f"digits_methods method={chain.method.name}{kept}")
