"""An analysis is read back from its record."""

from orchestrator.analysis.diagnosis import Layer, analyse
from orchestrator.analysis.record import load_analysis, publish_analysis, recorded_analyses
from orchestrator.analysis.sentences import describe_analysis
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from tests.support.analyses import answers


def test_an_analysis_is_read_back_from_its_record(store: Store, chain: ChainResult):
    asked = [
        each.model_copy(update={"key": f"{number:016x}"})
        for number, each in enumerate(answers(1.0))
    ]
    for each in asked:
        store.write(each.name, canonical_json(each))
    retrained = {"classifier": chain.steps[0]}
    record = publish_analysis(store, chain, (0, 1), asked, retrained)
    assert publish_analysis(store, chain, (0, 1), asked, retrained) == record
    assert list(recorded_analyses(Repository(store))) == [record]
    again = load_analysis(Repository(store), record)
    first = analyse(chain, chain.steps[0], chain.steps[1], asked, retrained)
    assert describe_analysis(again) == describe_analysis(first)
    assert again.layers == first.layers
    assert isinstance(again.layers[0], Layer)
    other = publish_analysis(store, chain, (0, 1), asked, {})
    assert other.key != record.key
