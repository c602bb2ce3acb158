"""Define the document that methods with a binary cross-entropy per channel share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.config import InputError, MethodConfig


class BinaryMethodConfig(MethodConfig):
    """Base of the documents of methods that learn by a binary cross-entropy per channel.

    With random weights every channel starts at the probability 1/2. All rows of the classifier are
    then pushed the same way, and the network may say "some class" for many epochs before chance
    parts them. A start near the classes' frequency prevents this.
    """

    # The probability p that each class of the step starts at: the bias of its channel is
    # log(p / (1 - p)), and that of background, in step 0, log((1 - p) / p). "shares" takes the
    # shares of the pixels of the step's images, which only a step with masks may know. None leaves
    # the bias random, as in the papers.
    initial_probability: Annotated[float, Field(gt=0, lt=1)] | Literal["shares"] | None = Field(
        default=None, json_schema_extra={"legacy": None}
    )

    @property
    def is_binary(self) -> bool:
        """Return whether the loss is a binary cross-entropy; some methods offer another, too."""
        return True

    @model_validator(mode="after")
    def _start_of_a_binary_loss(self) -> Self:
        if self.initial_probability is not None and not self.is_binary:
            raise InputError(
                "an initial probability is for a loss by binary cross-entropy, and this one is a "
                "softmax: leave initial_probability out, or set loss to bce"
            )
        return self
