"""Every command of the README, run as it stands there, on a generated folder of the layout it names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from orchestrator.datasets.catalog import publish
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from tests.support.paths import ROOT
from training.data.digits import Digits
from training.models.mobilenet import mobilenet_v2

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]
CLASSES = (8, 9, 10, 12, 13, 15, 17, 18)  # cat chair cow dog horse person sheep sofa
SET_UP = {"make demo", "make test", ". .venv/bin/activate"}  # run by CI itself, or about the shell


def commands() -> list[str]:
    """The lines of the README's bash blocks, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_the_readmes_commands_work(tmp_path: Path) -> None:
    draw_voc_folder(tmp_path / "VOC2012")
    weights = {name: value.contiguous() for name, value in mobilenet_v2(16).state_dict().items()}
    save_file(weights, tmp_path / "mobilenet_v2.safetensors")
    publish_digits(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STEPCHAIN_CACHE": str(tmp_path / "cache")}
    ran = 0
    for command in commands():
        if command.strip() in SET_UP:
            continue
        program, *arguments = shlex.split(command)
        assert program == "python"
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 11
    page = (tmp_path / "reports" / "voc" / "report.html").read_text()
    assert "sheep" in page
    assert (
        "Where forgetting sits" in (tmp_path / "reports" / "analysis" / "analysis.html").read_text()
    )


def publish_digits(folder: Path) -> None:
    """Fewer of the scenes that `make demo` puts into the store."""
    manifest, _ = build_dataset(Digits(seed=0, train=160, val=16), folder / "digits")
    publish(open_store(str(folder / "stepchain-store")), "digits", folder / "digits", manifest)


def draw_voc_folder(root: Path) -> None:
    """64 training and 8 validation photos with a coloured box of one or two classes each, in VOC's layout."""
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in {"train_aug": 64, "val": 8}.items():
        ids = [f"2007_{name}_{number:03d}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
        for number, id in enumerate(ids):
            mask, image = (
                np.zeros((96, 128), np.uint8),
                rng.integers(0, 90, (96, 128, 3)).astype(np.uint8),
            )
            for left, place in ((8, number), (72, number // 2)):
                box = np.s_[20:76, left : left + 48]
                mask[box] = CLASSES[place % len(CLASSES)]
                image[box] += np.array(
                    [mask[box].max() * 7, 120 - mask[box].max() * 5, 60], np.uint8
                )
            Image.fromarray(image).save(root / "JPEGImages" / f"{id}.jpg")
            picture = Image.fromarray(mask).convert("P")
            picture.putpalette([37 * value % 256 for value in range(768)])
            picture.save(root / "SegmentationClassAug" / f"{id}.png")
