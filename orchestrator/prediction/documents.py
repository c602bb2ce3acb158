"""Define what is written about predictions: who predicted, and what is on each photo."""

from training.config import Document


class Question(Document):
    """The model that predicts and how it sees photos; a folder holds the answers to one."""

    format: int = 1
    step: str  # its key
    attempt: str
    class_names: dict[int, str]  # by dataset id, background 0 included, in channel order
    short_side: int | None  # to which a photo's shorter side is resized; None: as it is
    tile: int  # pixels of a side of the square that is predicted at once
    precision: str

    def differences(self, other: "Question") -> str:
        """Return in words what differs from another question."""
        words = []
        for name in ("step", "attempt", "short_side", "tile", "precision"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                words.append(f"{name.replace('_', ' ')} {theirs or 'original'}")
        return ", ".join(words) or "other classes"


class ClassShare(Document):
    """How much of a photo shows a class."""

    id: int
    name: str
    pixels: int
    share: float  # of the photo's pixels


class Prediction(Document):
    """What was predicted of one photo. Paths are below the folder of the predictions."""

    photo: str  # its name below what was asked for
    sha256: str  # of its file
    width: int  # pixels, upright
    height: int
    mask: str
    overlay: str
    classes: tuple[ClassShare, ...]  # those that it shows, the largest first


class Unreadable(Document):
    """A photo that cannot be read, and why."""

    photo: str
    problem: str


class Predictions(Document):
    """Everything that was predicted in one folder: `predictions.json`."""

    question: Question
    photos: tuple[Prediction, ...]
    unreadable: tuple[Unreadable, ...]
