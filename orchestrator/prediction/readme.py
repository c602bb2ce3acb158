"""Write how an exported file is loaded without Stepchain: the lines a person copies."""

from collections.abc import Sequence

OPEN_PHOTO = """\
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
side = about["short_side"] or min(photo.size)
photo = photo.resize([length * side // min(photo.size) for length in photo.size])
"""
NAMES = """\
for channel in channels.unique().tolist():
    print(about["classes"][channel], f"{(channels == channel).float().mean():.1%}")
"""
TORCH_SCORES = """\
pixels = torch.from_numpy(numpy.array(photo)).permute(2, 0, 1)[None]
with torch.inference_mode():
    channels = model(pixels)[0].argmax(0)
"""
SAFETENSORS = f"""\
import json, numpy, torch
from network import Network  # network.py lies beside the weights
from PIL import Image, ImageOps
from safetensors import safe_open

with safe_open("FILE", "pt") as file:
    about = json.loads(file.metadata()["stepchain"])
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
model = Network(about["model"], about["channels"]).eval()
model.load_state_dict(weights)
{OPEN_PHOTO}{TORCH_SCORES}{NAMES}"""
TORCH = f"""\
import json, numpy, torch
from PIL import Image, ImageOps

files = {{"stepchain.json": ""}}
model = torch.export.load("FILE", extra_files=files).module()
about = json.loads(files["stepchain.json"])
{OPEN_PHOTO}{TORCH_SCORES}{NAMES}"""
ONNX = f"""\
import json, numpy, onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession("FILE")
about = json.loads(model.get_modelmeta().custom_metadata_map["stepchain"])
{OPEN_PHOTO}pixels = numpy.array(photo).transpose(2, 0, 1)[None]
channels = model.run(["scores"], {{"pixels": pixels}})[0][0].argmax(0)
for channel in numpy.unique(channels):
    print(about["classes"][channel], f"{{(channels == channel).mean():.1%}}")
"""
LINES = {"safetensors": SAFETENSORS, "torch": TORCH, "onnx": ONNX}
NEEDS = {
    "safetensors": "torch, safetensors, numpy and Pillow, and `network.py`, which lies beside it "
    "and holds the network in plain PyTorch: weights alone say what a network knows, and not what "
    "it computes",
    "torch": "torch 2.13 or newer, numpy and Pillow",
    "onnx": "onnxruntime, numpy and Pillow",
}
PAGE = """\
# FILE

A segmentation network that Stepchain trained. This is all that it takes to use it; Stepchain itself
is not needed. It needs NEEDS.

```python
LINES```

Pixels are RGB, uint8 [images, 3, height, width], as they are in the photo: the network normalises
them itself. Scores are [images, CLASSES, height, width], and the largest is the class of a pixel.
Sizes may change from call to call.SMALLEST

A photo is resized so that its shorter side has `short_side` pixels (none: as it is), as when the
network was scored. The classes by channel:

NAMES
"""


def lines(kind: str, file: str) -> str:
    """Return the lines of Python that load a file of a format and print what a photo shows."""
    return LINES[kind].replace("FILE", file)


def readme(kind: str, file: str, classes: Sequence[str], library: bool = False) -> str:
    """Return the page that lies beside an exported file.

    Args:
        kind: The format.
        file: The name of the file.
        classes: Class names by channel.
        library: Whether the encoder is one of Transformers.
    """
    traced = (
        " No side may be shorter than two cells of the network's map."
        if kind != "safetensors"
        else ""
    )
    named = "\n".join(f"{channel}. {name}" for channel, name in enumerate(classes))
    values = {
        "NEEDS": ("transformers, " if library else "") + NEEDS[kind],
        "LINES": lines(kind, file),
        "FILE": file,
        "CLASSES": str(len(classes)),
        "SMALLEST": traced,
        "NAMES": named,
    }
    page = PAGE
    for mark, value in values.items():
        page = page.replace(mark, value)
    return page
