"""Run every command of the README as it stands there, on generated data."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.paths import ROOT
from tests.support.photos import save_mask, write_voc_lists
from training.models.mobilenet import mobilenet_v2

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]
CLASSES = (8, 9, 10, 12, 13, 15, 17, 18)  # cat chair cow dog horse person sheep sofa
WALLS = 40
# CI itself runs these, or they are about the shell.
SET_UP = {"make demo", "make test", ". .venv/bin/activate"}


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in this language."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[str]:
    """Return the commands of the README's bash blocks, continued lines joined."""
    joined = [block.replace("\\\n", " ") for block in blocks("bash")]
    return [line for block in joined for line in block.splitlines()]


def test_the_readmes_commands_work(tmp_path: Path) -> None:
    """Run every command in order, with the campaign file that the README shows."""
    draw_voc_folder(tmp_path / "VOC2012")
    draw_walls(tmp_path / "photos", tmp_path / "masks")
    weights = {name: value.contiguous() for name, value in mobilenet_v2(16).state_dict().items()}
    save_file(weights, tmp_path / "mobilenet_v2.safetensors")
    # `make demo` publishes more scenes.
    store = open_store(str(tmp_path / "stepchain-store"))
    publish_digits(store, tmp_path / "digits", seed=0, train=160, val=16)
    (campaign,) = blocks("python")
    (tmp_path / "prior.py").write_text(campaign)
    ran = [run(command, tmp_path) for command in commands() if command.strip() not in SET_UP]
    assert len(ran) >= 12
    reports = tmp_path / "reports"
    assert "prior=softmax_ce" in (reports / "prior" / "report.html").read_text()
    assert "sheep" in (reports / "voc" / "report.html").read_text()
    assert "rust" in (reports / "walls" / "report.html").read_text()
    assert "crack" in (tmp_path / "look-walls.html").read_text()
    predicted = list((tmp_path / "predicted").rglob("*.png"))
    assert len(predicted) >= WALLS
    assert "Where forgetting sits" in (reports / "analysis" / "analysis.html").read_text()


def run(command: str, folder: Path) -> str:
    """Run a command of the README in `folder`, and return what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STEPCHAIN_CACHE": str(folder / "cache")}
    program, *arguments = shlex.split(command)
    assert program == "python"
    begun = time.monotonic()
    command_line = [sys.executable, *arguments]
    done = subprocess.run(
        command_line, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    print(f"{time.monotonic() - begun:5.1f} s  {command}", flush=True)
    return done.stdout


def draw_voc_folder(root: Path) -> None:
    """Draw 64 training and 8 validation photos with two coloured boxes each, in VOC's layout."""
    rng = np.random.default_rng(0)
    for number, id in write_voc_lists(root, {"train_aug": 64, "val": 8}):
        mask = np.zeros((96, 128), np.uint8)
        image = rng.integers(0, 90, (96, 128, 3)).astype(np.uint8)
        for left, place in ((8, number), (72, number // 2)):
            class_id = CLASSES[place % len(CLASSES)]
            box = np.s_[20:76, left : left + 48]
            mask[box] = class_id
            image[box] += np.array([class_id * 7, 120 - class_id * 5, 60], np.uint8)
        Image.fromarray(image).save(root / "JPEGImages" / f"{id}.jpg")
        save_mask(mask, root / "SegmentationClassAug" / f"{id}.png")


def draw_walls(photos: Path, masks: Path) -> None:
    """Draw photos of walls with a box of two of three classes each, and their masks."""
    rng = np.random.default_rng(1)
    photos.mkdir()
    masks.mkdir()
    colours = ((10, 10, 10), (180, 80, 20), (60, 60, 160))
    for number in range(WALLS):
        image = rng.integers(120, 200, (72, 96, 3)).astype(np.uint8)
        mask = np.zeros((72, 96), np.uint8)
        for left, place in ((6, number), (54, number // 3)):
            box = np.s_[16:56, left : left + 34]
            mask[box] = 1 + place % 3
            image[box] = colours[place % 3]
        Image.fromarray(image).save(photos / f"wall {number}.jpg")
        Image.fromarray(mask).save(masks / f"wall {number}.png")
