"""Flow and camera motion against known movements."""

import cv2
import numpy as np
import pytest

from engine.perceive.motion import (
    FEATURE_CHANNELS,
    FEATURE_SIZE,
    FLOW_SIZE,
    MotionEstimator,
    fit_camera_motion,
    network_features,
)

H, W = 256, 448


def texture(seed: int, h: int, w: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (h // 4, w // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (w, h), interpolation=cv2.INTER_CUBIC)


def moved(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    shift = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    return cv2.warpAffine(image, shift, (W, H), borderMode=cv2.BORDER_REFLECT)


def small_gray(image: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, FEATURE_SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)


def test_first_frame_has_no_motion_and_reset_forgets() -> None:
    estimator = MotionEstimator()
    image = texture(0, H, W)
    assert estimator.step(image) is None
    assert estimator.step(image) is not None
    estimator.reset()
    assert estimator.step(image) is None


def test_backward_flow_points_to_where_the_content_was() -> None:
    image = texture(1, H, W)
    estimator = MotionEstimator()
    estimator.step(image)
    motion = estimator.step(moved(image, 8, -4))
    scale = FLOW_SIZE[1] / W
    inner = motion.flow[20:-20, 20:-20]
    assert np.median(inner[..., 0]) == pytest.approx(-8 * scale, abs=0.3)
    assert np.median(inner[..., 1]) == pytest.approx(4 * scale, abs=0.3)


def test_camera_motion_is_removed_and_the_object_stands_out() -> None:
    background, patch = texture(2, H, W), texture(3, 80, 100)
    first = background.copy()
    first[90:170, 150:250] = patch
    second = moved(background, 6, 2)
    second[90:170, 162:262] = patch
    estimator = MotionEstimator()
    estimator.step(first)
    motion = estimator.step(second)
    residual = np.linalg.norm(motion.residual, axis=2)
    scale = FEATURE_SIZE[1] / W
    inside = residual[int(100 * scale) : int(160 * scale), int(175 * scale) : int(250 * scale)]
    assert np.median(inside) > 3.0
    assert np.median(residual[:33]) < 0.3


def test_fit_recovers_a_quadratic_field_despite_a_moving_object() -> None:
    h, w = FEATURE_SIZE
    y, x = np.mgrid[0:h, 0:w]
    x, y = (x / w - 0.5) * 2, (y / h - 0.5) * 2
    true = np.array([[3, -1], [0.5, 0.1], [-0.2, 0.4], [0.1, 0], [0, 0.3], [0.2, -0.1]])
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    flow = (basis @ true).astype(np.float32)
    flow[26:80, 40:107] += 9.0  # 12 % of the image moves on its own
    assert fit_camera_motion(flow) == pytest.approx(true, abs=0.15)


def test_features_match_a_plain_numpy_reference() -> None:
    a, b = texture(4, H, W), moved(texture(4, H, W), 3, 1)
    estimator = MotionEstimator()
    estimator.step(a)
    motion = estimator.step(b)
    c = fit_camera_motion(motion.flow)
    h, w = FEATURE_SIZE
    y, x = np.mgrid[0:h, 0:w]
    u, v = (x / w - 0.5) * 2, (y / h - 0.5) * 2
    camera = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1) @ c

    def compress(value: np.ndarray) -> np.ndarray:
        return value / np.sqrt(1 + np.abs(value))

    residual = motion.flow - camera
    position = (camera * (w / FLOW_SIZE[1]) + np.stack([x, y], axis=-1)).astype(np.float32)
    before = cv2.remap(
        small_gray(a),
        np.clip(position[..., 0], 0, w - 1.001),
        np.clip(position[..., 1], 0, h - 1.001),
        cv2.INTER_LINEAR,
    )
    difference = np.clip((small_gray(b) - before) / 32, -4, 4)
    expected = np.stack([*compress(residual).transpose(2, 0, 1), *compress(camera).transpose(2, 0, 1)])
    assert motion.features[:4] == pytest.approx(expected, abs=2e-3)
    # OpenCV interpolates with 5 bits of fraction, the engine with all of them.
    assert np.abs(motion.features[4] - difference).max() < 0.12
    assert motion.mean_difference == pytest.approx(np.abs(difference).mean() * 32, rel=0.05)


def test_network_features_have_the_input_size_and_are_zero_without_motion() -> None:
    assert network_features(None, (H, W)).shape == (FEATURE_CHANNELS, H, W)
    assert not network_features(None, (H, W)).any()
    estimator = MotionEstimator()
    estimator.step(texture(5, H, W))
    motion = estimator.step(moved(texture(5, H, W), 3, 1))
    assert network_features(motion, FEATURE_SIZE) is motion.features
    assert network_features(motion, (H, W)).shape == (FEATURE_CHANNELS, H, W)
