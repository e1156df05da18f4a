"""Pictures that keep their aspect ratio: where the frame lies inside the input of a network, and back."""

from dataclasses import dataclass

import cv2
import numpy as np

from engine.errors import ModelError

PLACES = ("centre", "corner", "stretch")


@dataclass(frozen=True, slots=True)
class Content:
    """Where the frame lies inside the input.

    Attributes:
        top, left, height, width: pixels of the input.
    """

    top: int
    left: int
    height: int
    width: int

    def centres(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the cells of a grid over the frame: y float32 [h] and x float32 [w], edges of the input at 0."""
        h, w = grid
        y = self.top + (np.arange(h) + 0.5) * (self.height / h)
        x = self.left + (np.arange(w) + 0.5) * (self.width / w)
        return y.astype(np.float32), x.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a network was trained to see pictures of another shape than its input.

    Attributes:
        size: (h, w) of the input.
        place: "centre" or "corner" (top left) keep the aspect ratio and fill the rest; "stretch" does not keep it.
        fill: what the rest is filled with, per channel, normalised as the input is.
    """

    size: tuple[int, int]
    place: str
    fill: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ModelError(f"metadata 'letterbox' is '{self.place}': use one of {', '.join(PLACES)}")

    def content(self, aspect: float) -> Content:
        """Where a frame of width / height = `aspect` lies."""
        h, w = self.size
        if self.place == "stretch":
            return Content(0, 0, h, w)
        height = min(h, max(1, round(w / aspect)))
        width = min(w, max(1, round(h * aspect)))
        if self.place == "corner":
            return Content(0, 0, height, width)
        return Content((h - height) // 2, (w - width) // 2, height, width)

    def put(self, image: np.ndarray, content: Content) -> np.ndarray:
        """The input of the network.

        Args:
            image: float32 [1, 3, h, w], the frame stretched to `size`.
            content: where it belongs.

        Returns:
            float32 [1, 3, h, w]; `image` itself where nothing is to be done.
        """
        if (content.height, content.width) == self.size:
            return image
        out = np.empty_like(image)
        out[:] = np.asarray(self.fill, np.float32).reshape(1, 3, 1, 1)
        rows = slice(content.top, content.top + content.height)
        columns = slice(content.left, content.left + content.width)
        for channel in range(3):
            # One side shrinks, none grows.
            out[0, channel, rows, columns] = cv2.resize(
                image[0, channel], (content.width, content.height), interpolation=cv2.INTER_AREA
            )
        return out
