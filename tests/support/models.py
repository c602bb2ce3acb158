"""Publish untrained models, so that predictions can be made without training anything."""

import json
from hashlib import sha256

import torch
from safetensors.torch import save

from orchestrator.records import layout
from orchestrator.records.schema import File, StepRecord
from orchestrator.store.base import Store
from training.checkpoint import ModelDocument
from training.models.segmenter import Segmenter


def publish_model(store: Store, key: str) -> Segmenter:
    """Add a model with random weights to a published step, and return it."""
    record = StepRecord.model_validate_json(store.read(layout.step_record(key)))
    task = record.step.task
    document = ModelDocument(
        model=record.step.model, groups=task.groups, background=task.background
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Segmenter(document.model, document.channels)
    contents = {
        "model.json": document.model_dump_json().encode(),
        "model.safetensors": save(model.state_dict()),
    }
    files = dict(record.files)
    for name, data in contents.items():
        store.write(layout.published_file(key, record.attempt, name), data)
        files[name] = File(sha256=sha256(data).hexdigest(), bytes=len(data))
    changed = json.loads(record.model_copy(update={"files": files}).model_dump_json())
    store.write(layout.step_record(key), json.dumps(changed).encode())
    return model
