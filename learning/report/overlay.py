"""What a network says about a frame, as a picture."""

import cv2
import numpy as np

_MIN_SCORE = 0.3
_MOST = 10
_COLOURS = np.array(
    [
        (178, 114, 0),
        (0, 94, 213),
        (115, 158, 0),
        (167, 121, 204),
        (0, 159, 230),
        (233, 180, 86),
        (66, 228, 240),
        (60, 60, 220),
        (200, 60, 160),
        (120, 220, 120),
    ],
    np.float32,
)


def draw_answer(image: np.ndarray, foreground: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The best proposals in colour over the frame, the outline of the foreground in white.

    Args:
        image: uint8 [H, W, 3] RGB.
        foreground: float32 [h, w], probability.
        masks: float32 [N, h, w] logits; scores: float32 [N].

    Returns:
        uint8 [H/2, W/2, 3] BGR.
    """
    size = (image.shape[1] // 2, image.shape[0] // 2)
    out = cv2.resize(image, size, interpolation=cv2.INTER_AREA)[..., ::-1].astype(np.float32)
    taken, notes = np.zeros(size[::-1], bool), []
    order = [int(n) for n in np.argsort(-scores, kind="stable") if scores[n] >= _MIN_SCORE]
    for number, n in enumerate(order[:_MOST]):
        inside = cv2.resize(masks[n], size, interpolation=cv2.INTER_LINEAR) > 0
        fresh = inside & ~taken
        if fresh.sum() < 0.5 * inside.sum():
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        out[fresh] = 0.5 * out[fresh] + 0.5 * colour
        taken |= inside
        x, y = (int(np.median(v)) for v in np.nonzero(inside)[::-1])
        notes.append((f"{scores[n]:.2f}", (max(0, x - 12), y)))
    out = np.clip(out, 0, 255).astype(np.uint8)
    for text, place in notes:
        cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.32, (255, 255, 255), 1)
    moving = (cv2.resize(foreground, size, interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, (255, 255, 255), 1)
    return out
