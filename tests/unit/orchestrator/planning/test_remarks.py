"""A plan says where a right chain is not the paper's."""

from orchestrator.planning.chain import Chain
from orchestrator.planning.fields import with_field
from orchestrator.planning.remarks import remarks
from stepchain.presets import digits_mib, voc_mib, voc_mib_15_1, voc_wilson


def weighted(chain: Chain, weight: float) -> Chain:
    return with_field(chain, "method.distillation_weight", weight)


def test_mibs_15_1_with_the_weight_of_other_splits_is_remarked() -> None:
    (remark,) = remarks(weighted(voc_mib_15_1(), 10))
    assert "distillation weight 100" in remark
    assert "voc_mib_15_1" in remark


def test_other_chains_are_not() -> None:
    chains = (voc_mib_15_1(), weighted(voc_mib_15_1(), 50), voc_mib(), voc_wilson(), digits_mib())
    assert [remarks(chain) for chain in chains] == [()] * 5
