"""Define the probes: documents that each ask one question of a pair of models.

With the two models, the images and the way they are viewed, a probe decides its answer. Every
probe is about the classes that the earlier model knew, because only those can be forgotten.
`training.probes.measure` answers probes. Importing this file imports no torch.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from training.config import Document

Answer = dict[str, Any]  # JSON: numbers by name
Joint = Literal["identity", "least_squares", "trained"]


class Stitching(Document):
    """The mIoU of a stitched network on the earlier classes.

    The network is the later model up to `cut`, a 1x1 joint, and the earlier model from there on.
    """

    probe: Literal["stitching"] = "stitching"
    cut: str
    joint: Joint
    images: int = Field(default=128, ge=1)  # that the joint is fitted to
    epochs: int = Field(default=10, ge=1)  # of training the joint
    learning_rate: float = Field(default=1e-3, gt=0)


class Similarity(Document):
    """Debiased linear CKA of what the two models compute up to `cut`.

    Examples are positions on a grid of the same images.
    """

    probe: Literal["similarity"] = "similarity"
    cut: str
    images: int = Field(default=128, ge=1)


class Bias(Document):
    """The classifier's weights, and its logit gaps on pixels of the earlier classes.

    The answer also holds the later model's mIoU with the gaps subtracted.
    """

    probe: Literal["bias"] = "bias"
    images: int = Field(default=128, ge=1)  # of the earlier classes, from the training split


AnyProbe = Stitching | Similarity | Bias
Probe = Annotated[AnyProbe, Field(discriminator="probe")]
