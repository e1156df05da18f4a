"""The control channel on a real engine: what is asked for is what happens."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.config import EngineConfig, apply
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from engine.registry import Registry
from engine.run import main as engine_command_line
from engine.scene import Scene
from streaming import keys
from streaming.control.__main__ import main as command_line
from streaming.control.client import ControlClient
from streaming.control.operations import Operations
from streaming.control.protocol import ControlError
from streaming.control.server import ControlServer
from streaming.control.settings import LIVE_KEYS, LiveSettings
from streaming.loaded import Loaded
from streaming.models import ModelWatch
from streaming.sources import open_source
from streaming.subscriber import MaskSubscriber
from tests.ports import free_port
from tests.streaming.running import SCENE, running_engine
from tests.streaming.scenes import eventually

PATIENCE_S = 60.0


def test_a_running_engine_does_what_it_is_told(motion_model: Path, caplog):
    with running_engine(motion_model, "cam") as engine:
        settings = LiveSettings(
            engine.config, lambda config: engine.session.call(lambda: engine.factory.configure(config), PATIENCE_S)
        )
        operations = Operations(engine.session, engine.status.to_dict, settings)
        with (
            ControlServer("tcp://127.0.0.1:0", operations) as server,
            ControlClient(server.endpoint, timeout_s=PATIENCE_S) as client,
        ):
            status = client.status()
            assert (status["ready"], status["model"]["name"]) == (True, "motion")
            assert status["frames"] > 0
            assert status["rss_mb"] > 1
            assert [source["name"] for source in client.sources()] == ["cam"]

            assert client.add_source(f"door={SCENE}") == "door"
            assert engine.goes_on("door")
            with pytest.raises(ControlError, match="exists already"):
                client.add_source(f"door={SCENE}")
            with pytest.raises(ControlError, match="cannot open") as caught:
                client.add_source("lab=rtsp://admin:hunter2@127.0.0.1:9/stream?token=hunter2")
            assert (caught.value.code, caught.value.exit_code) == ("source", 3)
            assert "hunter2" not in str(caught.value)
            client.remove_source("door")
            assert [source["name"] for source in client.sources()] == ["cam"]

            client.pause("cam")
            paused = engine.session.sources()[0]
            assert eventually(lambda: engine.session.sources()[0].captured > paused.captured + 2, PATIENCE_S)
            assert engine.frames("cam") <= paused.frames + 3  # those in work when it began
            client.resume("cam")
            assert engine.goes_on("cam")

            height, width = client.snapshot("cam", "labels")["frame_size"]
            picture = cv2.imdecode(np.frombuffer(client.snapshot("cam", "image")["data"], np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (height, width, 3)
            mask = np.zeros((height, width), bool)
            mask[height // 3 : height // 2, width // 3 : width // 2] = True
            identity = client.track("cam", mask=mask)
            assert client.track("cam", box=(width // 4, height // 4, width // 2, height // 2)) != identity
            client.forget(identity, "cam")
            with pytest.raises(ControlError, match=str(identity)):
                client.forget(identity, "cam")

            assert client.set({"propose.proposals": 4, "select.lambda_flow": 0})["propose.proposals"] == 4
            pipelines = [lane.pipeline for lane in engine.session._schedule.lanes]
            assert [pipeline._config.propose.proposals for pipeline in pipelines] == [4]
            client.add_source(f"later={SCENE}")
            later = engine.session._schedule.lanes[-1].pipeline
            assert (later._config.propose.proposals, later._config.select.lambda_flow) == (4, 0.0)
            assert engine.goes_on("cam")
            assert "hunter2" not in caplog.text
            client.shutdown()
            assert eventually(lambda: not engine.session.running, PATIENCE_S)


def test_models_are_reloaded_and_rolled_back_while_frames_flow(tmp_path: Path, motion_model: Path):
    swappable = pytest.importorskip("tests.swappable", reason="needs onnx")
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    with (
        running_engine(motion_model, "cam") as engine,
        ModelWatch(
            registry,
            Network,
            engine.session,
            running=Loaded(engine.network, None),
            base=motion_model,
            poll_s=1000.0,  # only what is asked for happens
        ) as watch,
        ControlServer("tcp://127.0.0.1:0", Operations(engine.session, engine.status.to_dict, models=watch)) as server,
        ControlClient(server.endpoint, timeout_s=PATIENCE_S) as client,
    ):
        assert client.reload_model() == 1  # nothing new
        version = registry.place(swappable.variant(tmp_path / "other.onnx", 2), {})
        assert client.reload_model() == 2
        assert client.status()["model"] == {"name": version.name, "hash": version.hash, "generation": 2}
        assert engine.goes_on("cam")
        assert client.rollback_model() == 3
        assert client.status()["model"]["name"] == "motion"
        assert engine.goes_on("cam")
        with pytest.raises(ControlError) as caught:
            client.rollback_model()
        assert (caught.value.code, caught.value.exit_code) == ("model", 4)


LIVE_VALUES = {
    "perceive.cut_difference": 0.001,
    "propose.proposals": 2,
    "propose.min_area": 0.05,
    "propose.duplicate_iou": 0.2,
    "select.combinations": 1,
    "select.lambda_background": 5.0,
    "select.lambda_flow": 0.0,
    "select.lambda_consistency": 20.0,
    "select.lambda_score": 0.0,
    "select.score_reference": 0.7,
}


def decisions(scenes: list[Scene]) -> list[tuple]:
    """What was chosen and how surely, whatever the ids."""
    return [(scene.kind, scene.frame_index, (scene.labels > 0).tobytes(), scene.commit) for scene in scenes]


def test_a_live_key_decides_like_a_start_with_it(motion_model: Path):
    """Changed after a reset, an engine goes on exactly as one that was started that way."""
    assert set(LIVE_VALUES) == set(LIVE_KEYS)
    network = Network(motion_model)
    with open_source("demo://?size=120x214&frames=9&seed=3") as source:
        frames = list(source)

    def run(pipeline: Pipeline) -> list[tuple]:
        return decisions([scene for frame in frames for scene in pipeline.step(frame)] + pipeline.flush())

    untouched = run(Pipeline(EngineConfig(), network))
    live = Pipeline(EngineConfig(), network)
    for key, value in LIVE_VALUES.items():
        changed = apply(EngineConfig(), {key: value})
        live.reset()
        live.configure(changed)
        decided = run(live)
        assert decided == run(Pipeline(changed, network)), key
        assert decided != untouched, f"{key} makes no difference here: the comparison proves nothing"


def test_an_engine_process_with_keys_control_and_metrics(tmp_path: Path, motion_model: Path, capsys):
    folder, robot = tmp_path / "keys", tmp_path / "keys" / "clients" / "robot"
    keys.create(folder, client="robot")
    publish, control = f"ipc://{tmp_path}/run/masks", f"ipc://{tmp_path}/run/control"
    port = free_port()
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(300)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "engine.run", "--source", f"cam={SCENE}", "--model", str(motion_model)),
            *("--publish", publish, "--control", control, "--keys", str(folder), "--metrics", str(port)),
        ],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # The service manager hears that the engine is ready, and then that it lives.
        assert heard.recv(100) == b"READY=1"
        assert heard.recv(100) == b"WATCHDOG=1"
        heard.close()
        with MaskSubscriber(publish, kind="provisional", keys=robot) as masks, MaskSubscriber(publish) as keyless:
            assert masks.read(120) is not None
            assert masks.read(120) is not None
            assert keyless.read(0.2) is None
        common = ["--endpoint", control, "--keys", str(robot), "--timeout", str(PATIENCE_S)]
        status = subprocess.run(
            [sys.executable, "-m", "streaming.control", "status", *common], capture_output=True, text=True, timeout=300
        )
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["sources"][0]["name"] == "cam"
        picture = tmp_path / "now.jpg"
        assert command_line(["snapshot", "--out", str(picture), "--width", "64", *common]) == 0
        assert json.loads(capsys.readouterr().out)["size"] == [36, 64]
        assert cv2.imread(str(picture)).shape == (36, 64, 3)
        assert command_line(["pause", "nobody", *common]) == 2
        refused = capsys.readouterr()
        assert (refused.out, refused.err.count("\n")) == ("", 1)
        with pytest.raises(ControlError) as caught, ControlClient(control, timeout_s=0.3) as keyless_client:
            keyless_client.shutdown()
        assert caught.value.code == "no_answer"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as reply:
            text = reply.read().decode()
        assert 'unseen_frames_total{source="cam"}' in text
        assert 'unseen_control_requests_total{outcome="usage"} 1.0' in text
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as reply:
            assert json.loads(reply.read())["ready"]
        assert command_line(["shutdown", *common]) == 0
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--control", "tcp://0.0.0.0:0"], "--keys DIR"),
        (["--publish", "tcp://0.0.0.0:0"], "--keys DIR"),
        (["--metrics", "0.0.0.0:0"], "--insecure"),
        (["--keys", "nowhere"], "streaming.keys new"),
    ],
)
def test_an_engine_others_could_reach_does_not_start(capsys, arguments: list[str], complaint: str):
    publish = [] if "--publish" in arguments else ["--no-publish"]
    assert engine_command_line(["--source", "demo", "--max-frames", "1", *publish, *arguments]) == 2
    told = capsys.readouterr().err
    assert complaint in told
    assert told.count("\n") == 1
