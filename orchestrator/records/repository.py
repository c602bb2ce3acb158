"""Read the records of a store: steps, evaluations and chains.

A `Repository` reads each object once, however often and from however many threads it is asked
for. That is safe because published records never change. It does not remember what it did not
find, because a record that is missing now may be published a moment later, nor training curves,
because those of thousands of steps take gigabytes.
"""

import json
import logging
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet
from pydantic import BaseModel

from orchestrator.records import layout
from orchestrator.records.damage import DamagedRecord, read_record
from orchestrator.records.keys import evaluation_keys, shares
from orchestrator.records.schema import (
    ChainRecord,
    EvaluationRecord,
    Scoring,
    StepRecord,
)
from orchestrator.store.base import READERS, NotFound, Store
from orchestrator.store.cache import CorruptedObject
from training.config import InputError
from training.metrics import Confusion

Item = TypeVar("Item")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=BaseModel)

log = logging.getLogger(__name__)
KEY_START = "[0-9a-f]{4,16}"


class Repository:
    """The records of one store. Threads may share it; processes open their own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._kept: dict[str, Future[Any]] = {}
        self._named: set[str] = set()  # objects that a warning named

    # Steps

    def step(self, key: str) -> StepRecord:
        """Return the record of a step. Raise NotFound if it is not published."""
        return self.document(layout.step_record(key), StepRecord)

    def find_step(self, key: str) -> StepRecord | None:
        """Return the record of a step, or None while the step is not published."""
        return _unless_absent(self.step, key)

    def find_steps(self, keys: Iterable[str]) -> list[StepRecord | None]:
        """Return the records of steps in the order of `keys`, with None where there is none."""
        return self.in_parallel(self.find_step, keys)

    def step_by_name(self, wanted: str) -> StepRecord:
        """Return the published step with a key, with the beginning of a key, or CHAIN:INDEX.

        Raises:
            InputError: There is no such step, or several keys begin like that.
        """
        if ":" in wanted:
            return self.step(self._step_of_chain(wanted))
        keys = self._steps_that_begin(wanted)
        if not keys:
            named = [chain for chain in self.chains() if chain.chain["name"] == wanted]
            advice = f"; of the chain, name a step, such as {wanted}:0" if named else ""
            raise InputError(
                f"no published step has the key {wanted!r}, or one that begins so, "
                f"in {self.store.uri}{advice}"
            )
        if len(keys) > 1:
            raise InputError(
                f"{wanted!r} begins the keys {', '.join(keys)} in {self.store.uri}: give more of it"
            )
        return self.step(keys[0])

    def curves(self, record: StepRecord) -> list[dict[str, Any]]:
        """Return the rows that training logged. Raise CorruptedObject if they were damaged."""
        name = layout.published_file(record.key, record.attempt, layout.CURVES_FILE)
        return json.loads(self._read_verified(name, record.files[layout.CURVES_FILE].sha256))

    def scored_steps(self) -> set[str]:
        """Return the keys of all published steps that have an evaluation."""
        # Every chain's step has one, and there are far fewer objects below evaluations/ than below
        # steps/.
        found = self.in_parallel(
            lambda share: list(self.store.list(share)), shares(layout.EVALUATIONS)
        )
        return {layout.step_of(name) for names in found for name in names}

    # Evaluations

    def evaluation(self, step: str, key: str) -> EvaluationRecord:
        """Return the record of an evaluation. Raise NotFound if it does not exist."""
        return self.document(layout.evaluation_record(step, key), EvaluationRecord)

    def find_evaluation(self, record: StepRecord, scoring: Scoring) -> EvaluationRecord | None:
        """Return the record of the evaluation of a step by `scoring`, or None if there is none.

        One of an older version counts where there is no newer one.
        """
        for key in evaluation_keys(record, scoring):
            found = _unless_absent(lambda key: self.evaluation(record.key, key), key)
            if found is not None:
                return found
        return None

    def find_evaluations(
        self, wanted: Iterable[tuple[StepRecord, Scoring]]
    ) -> list[EvaluationRecord | None]:
        """Return the evaluations in the order of `wanted`, with None where there is none."""
        return self.in_parallel(lambda pair: self.find_evaluation(*pair), wanted)

    def first_evaluation(self, record: StepRecord) -> EvaluationRecord | None:
        """Return the first evaluation of a step's attempt, which is the one its chain asked for."""
        names = self.store.list(layout.evaluations_folder(record.key))
        records = [name for name in names if layout.is_evaluation_record(name)]
        found = self.listed(records, EvaluationRecord)
        of_attempt = [each for each in found if each.attempt == record.attempt]
        return min(of_attempt, key=lambda each: each.provenance.created, default=None)

    def counts(self, evaluation: EvaluationRecord) -> Confusion:
        """Return an evaluation's confusion counts. Raise CorruptedObject if they were damaged."""
        name = layout.evaluation_counts(evaluation.step, evaluation.key)
        expected = evaluation.confusion.sha256
        return self._once(name, lambda: read_counts(self._read_verified(name, expected)))

    # Chains

    def chain(self, key: str) -> ChainRecord:
        """Return the record of a chain. Raise NotFound if it is not published."""
        return self.document(layout.chain_record(key), ChainRecord)

    def chains(self) -> list[ChainRecord]:
        """Return every published chain, the oldest first."""
        found = self.listed(self.store.list(layout.CHAINS), ChainRecord)
        return sorted(found, key=lambda record: record.created)

    def chain_by_name(self, wanted: str) -> ChainRecord:
        """Return the newest chain of that name, or the one whose key begins with `wanted`.

        Raises:
            InputError: There is no such chain, or several keys begin like that. The message names
                the chains there are.
        """
        chains = self.chains()
        named = [chain for chain in chains if chain.chain["name"] == wanted]
        if named:
            return max(named, key=lambda chain: chain.created)
        keyed = [chain for chain in chains if len(wanted) >= 4 and chain.key.startswith(wanted)]
        if len(keyed) == 1:
            return keyed[0]
        if keyed:
            raise InputError(
                f"{wanted!r} begins the key of {len(keyed)} chains in {self.store.uri}: "
                "give more of it"
            )
        names = ", ".join(sorted({chain.chain["name"] for chain in chains})) or "none"
        raise InputError(
            f"no chain is named {wanted!r}, nor has a key that begins so, in {self.store.uri}; "
            f"published: {names}"
        )

    # Documents of any kind

    def document(self, name: str, kind: type[Kind]) -> Kind:
        """Return the record in the object `name`.

        Raise NotFound if it does not exist, and DamagedRecord if it is no such record.
        """
        return self._once(name, lambda: read_record(self.store, name, kind))

    def documents(self, names: Iterable[str], kind: type[Kind]) -> list[Kind]:
        """Return the records in the order of `names`. Raise NotFound if one does not exist."""
        return self.in_parallel(lambda name: self.document(name, kind), names)

    def listed(self, names: Iterable[str], kind: type[Kind]) -> list[Kind]:
        """Return the records among listed objects, in their order.

        What is no record is named in a warning, once, and the rest goes on. What does not exist is
        left out.
        """

        def read(name: str) -> Kind | None:
            try:
                return self.document(name, kind)
            except DamagedRecord as error:
                if name not in self._named:
                    self._named.add(name)
                    log.warning("passed over: %s", error)
            except NotFound:  # it was deleted since it was listed
                pass
            return None

        records = (name for name in names if name.endswith(".json"))
        return [record for record in self.in_parallel(read, records) if record is not None]

    def in_parallel(self, read: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call `read` for every item, from as many threads as the store has connections."""
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(read, items))

    def _steps_that_begin(self, wanted: str) -> list[str]:
        """Return the keys of published steps that begin so; a whole key is the only one."""
        if not re.fullmatch(KEY_START, wanted):
            return []
        names = self.store.list(layout.step_folder(wanted))
        found = {layout.step_of(name) for name in names if layout.is_step_record(name)}
        if wanted in found:
            return [wanted]
        # A copy of a step's folder has no key for a name.
        return sorted(key for key in found if re.fullmatch(KEY_START, key))

    def _step_of_chain(self, wanted: str) -> str:
        name, _, index = wanted.rpartition(":")
        steps = self.chain_by_name(name).steps
        if not index.isdigit() or int(index) >= len(steps):
            raise InputError(
                f"chain {name!r} has steps 0 to {len(steps) - 1}, and no step {index!r}"
            )
        return steps[int(index)]

    def _once(self, name: str, read: Callable[[], Result]) -> Result:
        """Return what `read` returned for this object when it was first called."""
        with self._lock:
            found = self._kept.get(name)
            future: Future[Any] = found or Future()
            self._kept[name] = future
        if found is None:
            try:
                future.set_result(read())
            except BaseException as error:
                with self._lock:
                    del self._kept[name]
                future.set_exception(error)
                raise
        return future.result()

    def _read_verified(self, name: str, expected: str) -> bytes:
        data = self.store.read(name)
        if sha256(data).hexdigest() != expected:
            raise CorruptedObject(
                f"{name!r} in {self.store.uri} is not the file its record names: "
                "it was damaged or replaced"
            )
        return data


def _unless_absent(read: Callable[[str], Result], key: str) -> Result | None:
    try:
        return read(key)
    except NotFound:
        return None


def read_counts(data: bytes) -> Confusion:
    """Return the confusion counts in a Parquet file."""
    # read_table and to_numpy would import pandas, which takes longer than all that happens here.
    table = pyarrow.parquet.ParquetFile(BytesIO(data)).read()
    columns = (table[name].combine_chunks() for name in Confusion._fields)
    return Confusion(*(np.from_dlpack(column) for column in columns))
