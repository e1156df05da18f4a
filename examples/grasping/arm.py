"""A Franka arm that moves its finger tips straight from above, in pybullet."""

from collections.abc import Callable
from types import ModuleType

import numpy as np

HAND_LINK = 11
"""The point between the finger tips."""

_JOINTS = tuple(range(7))
_FINGERS = (9, 10)
_HOME = (-1.35, -0.5, 0.0, -2.3, 0.0, 1.85, 0.78)
"""Beside the tray, out of the fixed camera's sight."""

_REST = (0.0, 0.3, 0.0, -2.1, 0.0, 2.4, 0.78)
_OPEN_M = 0.04
_CLOSE_N = 40.0
_ARM_N = 240.0


class Arm:
    """The arm.

    Args:
        bullet, client: pybullet and the connection.
        tick: called after every step of the simulation.
    """

    def __init__(self, bullet: ModuleType, client: int, tick: Callable[[], None]) -> None:
        self._bullet, self._client, self._tick = bullet, client, tick
        self._body = int(
            bullet.loadURDF(
                "franka_panda/panda.urdf", [0, 0, 0], [0, 0, 0, 1], useFixedBase=True, physicsClientId=client
            )
        )
        for finger in _FINGERS:
            bullet.changeDynamics(
                self._body, finger, lateralFriction=1.2, spinningFriction=0.01, physicsClientId=client
            )
        self._opening_m = _OPEN_M
        self.place(_HOME)

    @property
    def body(self) -> int:
        """Number of the arm's body."""
        return self._body

    def joints(self) -> np.ndarray:
        """Angles of the seven joints, radians."""
        states = self._bullet.getJointStates(self._body, _JOINTS, physicsClientId=self._client)
        return np.array([state[0] for state in states])

    def tips(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] of the point between the tips and the hand's quaternion [4]."""
        state = self._bullet.getLinkState(
            self._body, HAND_LINK, computeForwardKinematics=True, physicsClientId=self._client
        )
        return np.array(state[4]), np.array(state[5])

    def place(self, joints: np.ndarray | tuple[float, ...]) -> None:
        """Be there at once, with motors that hold it."""
        self._set(joints)
        for finger in _FINGERS:
            self._bullet.resetJointState(self._body, finger, self._opening_m, physicsClientId=self._client)
        self._drive(np.asarray(joints, float))

    def transit(self, joints: np.ndarray, frames: int, show: Callable[[], None]) -> None:
        """Move freely through the air; nothing is touched there, so no physics is spent on it.

        Args:
            show: called `frames` times on the way.
        """
        start = self.joints()
        for number in range(1, frames + 1):
            self.place(start + (joints - start) * number / frames)
            show()

    def home(self) -> np.ndarray:
        """Joint angles beside the tray."""
        return np.array(_HOME)

    def solve(self, at: np.ndarray, angle: float, near: np.ndarray | None = None) -> np.ndarray:
        """Joint angles that bring the tips to `at` from above, closing along `angle`; exact to a millimetre.

        Args:
            near: joint angles close to the answer, if known; spares most of the work.
        """
        # The fingers close along the hand's y axis, and a closing direction has no sign.
        yaw = (angle + np.pi / 2 + np.pi / 2) % np.pi - np.pi / 2
        turn = self._bullet.getQuaternionFromEuler([np.pi, 0, yaw])
        before = self.joints()
        joints = np.array(_REST) if near is None else near
        # pybullet's solver starts from where the arm is, and goes further when asked again from there.
        for _ in range(4 if near is None else 2):
            self._set(joints)
            joints = np.array(
                self._bullet.calculateInverseKinematics(
                    self._body,
                    HAND_LINK,
                    at.tolist(),
                    turn,
                    maxNumIterations=60 if near is None else 25,
                    residualThreshold=1e-4,
                    physicsClientId=self._client,
                )[:7]
            )
        self._set(before)
        return joints

    def straight(self, goal: np.ndarray, angle: float, steps: int) -> None:
        """Move the tips along a line with physics, `steps` steps long."""
        start, _ = self.tips()
        knots = max(2, steps // 40)
        before = self.joints()
        for knot in range(1, knots + 1):
            joints = self.solve(start + (goal - start) * knot / knots, angle, near=before)
            for share in range(1, steps // knots + 1):
                self._drive(before + (joints - before) * share / (steps // knots))
                self._step()
            before = joints

    def wait(self, steps: int) -> None:
        """Let time pass."""
        for _ in range(steps):
            self._step()

    def open(self, opening_m: float = 2 * _OPEN_M) -> None:
        """Fingers to an opening."""
        self._opening_m = min(_OPEN_M, opening_m / 2)
        self._drive_fingers(60.0)

    def close(self) -> None:
        """Close the fingers on whatever is between them."""
        self._opening_m = 0.0
        self._drive_fingers(_CLOSE_N)

    def holds(self, body: int) -> bool:
        """Whether a finger touches `body`."""
        return any(
            self._bullet.getContactPoints(self._body, body, finger, physicsClientId=self._client) for finger in _FINGERS
        )

    def _step(self) -> None:
        self._bullet.stepSimulation(physicsClientId=self._client)
        self._tick()

    def _set(self, joints: np.ndarray | tuple[float, ...]) -> None:
        for joint, value in zip(_JOINTS, joints, strict=True):
            self._bullet.resetJointState(self._body, joint, float(value), physicsClientId=self._client)

    def _drive(self, joints: np.ndarray) -> None:
        self._bullet.setJointMotorControlArray(
            self._body,
            _JOINTS,
            self._bullet.POSITION_CONTROL,
            targetPositions=joints.tolist(),
            forces=[_ARM_N] * len(_JOINTS),
            positionGains=[0.4] * len(_JOINTS),
            physicsClientId=self._client,
        )
        self._drive_fingers(_CLOSE_N)

    def _drive_fingers(self, force_n: float) -> None:
        for finger in _FINGERS:
            self._bullet.setJointMotorControl2(
                self._body,
                finger,
                self._bullet.POSITION_CONTROL,
                targetPosition=self._opening_m,
                force=force_n,
                maxVelocity=0.15,
                physicsClientId=self._client,
            )
