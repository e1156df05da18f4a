"""Keys: made once, kept private, and without the right one a client gets nothing at all."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from engine.errors import UsageError
from streaming import keys
from streaming.publisher import Publisher
from streaming.subscriber import MaskSubscriber
from tests.streaming.scenes import eventually, make_scene

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.create(tmp_path / "keys", client="robot")
    return tmp_path / "keys"


@pytest.fixture
def publisher(folder: Path):
    with Publisher(ANY_PORT, keys=keys.load_server(folder, "data"), patience_ms=500) as publisher:
        yield publisher


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_and_their_folders_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        keys.create(tmp_path / "keys", client="robot")
    finally:
        os.umask(before)
    secrets = sorted((tmp_path / "keys").rglob("*.secret"))
    assert len(secrets) == 4
    assert {mode(path) for path in secrets} == {0o600}
    assert {mode(path.parent) for path in secrets} == {0o700}


def test_data_and_control_have_separate_keys(folder):
    found = [keys.load_server(folder, channel).secret for channel in keys.CHANNELS]
    found += [keys.load_client(folder / "clients" / "robot", channel).secret for channel in keys.CHANNELS]
    assert len(set(found)) == 4
    for channel in keys.CHANNELS:
        client = keys.load_client(folder / "clients" / "robot", channel)
        server = keys.load_server(folder, channel)
        assert client.server == server.public
        assert keys.is_authorised(server, client.public)
    assert not keys.is_authorised(
        keys.load_server(folder, "control"), keys.load_client(folder / "clients" / "robot", "data").public
    )


def test_secrets_do_not_show_in_representations(folder):
    server = keys.load_server(folder, "data")
    client = keys.load_client(folder / "clients" / "robot", "data")
    assert server.secret.decode() not in repr(server)
    assert client.secret.decode() not in repr(client)


def test_existing_keys_are_never_overwritten(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="keys already"):
        keys.create(folder)
    with pytest.raises(UsageError, match="client robot already"):
        keys.add_client(folder, "robot")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["", "../other", "a/b", ".hidden", "x" * 65, "a\nb"])
def test_names_that_would_leave_the_folder_are_refused(folder, name):
    with pytest.raises(UsageError, match="client name"):
        keys.add_client(folder, name)
    with pytest.raises(UsageError, match="client name"):
        keys.revoke(folder, name)


def test_a_secret_others_can_read_is_refused(folder):
    (folder / "server" / "data.secret").chmod(0o640)
    with pytest.raises(UsageError, match=r"mode 0640, at most 0600.*chmod 600"):
        keys.load_server(folder, "data")


@pytest.mark.parametrize("content", [b"", b"short\n", b"~" * 40, b"a" * 41, b"\xff" * 40])
def test_files_that_hold_no_key_are_refused(folder, content):
    (folder / "server" / "data.secret").write_bytes(content)
    with pytest.raises(UsageError, match="not a key"):
        keys.load_server(folder, "data")


def test_missing_keys_say_how_to_make_them(tmp_path):
    with pytest.raises(UsageError, match=r"python -m streaming\.keys new"):
        keys.load_server(tmp_path, "data")
    with pytest.raises(UsageError, match=r"python -m streaming\.keys new"):
        MaskSubscriber(ANY_PORT, keys=tmp_path)


def test_the_command_line_makes_adds_and_revokes(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streaming.keys", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    folder = tmp_path / "keys"
    assert run("new", str(folder)).returncode == 0
    again = run("new", str(folder))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert run("client", str(folder), "viewer", "--data-only").returncode == 0
    viewer = keys.load_client(folder / "clients" / "viewer", "data")
    assert not (folder / "clients" / "viewer" / "control.secret").exists()
    assert keys.is_authorised(keys.load_server(folder, "data"), viewer.public)
    assert run("revoke", str(folder), "viewer").returncode == 0
    assert not keys.is_authorised(keys.load_server(folder, "data"), viewer.public)
    assert run("revoke", str(folder), "viewer").returncode == 2


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_client_with_keys_reads_the_masks(folder, tmp_path, transport):
    endpoint = ANY_PORT if transport == "tcp" else f"ipc://{tmp_path}/socket/masks"
    with (
        Publisher(endpoint, keys=keys.load_server(folder, "data"), patience_ms=500) as publisher,
        MaskSubscriber(publisher.endpoint, keys=folder / "clients" / "robot", every=True) as masks,
    ):
        assert publisher.wait_for_subscriber(60)
        for frame in range(3):
            publisher.publish(make_scene(frame))
        assert [masks.read(60).frame for _ in range(3)] == [0, 1, 2]


def unauthorised(folder: Path, tmp_path: Path, kind: str) -> Path | None:
    """Keys of a client that must not get in."""
    if kind == "without keys":
        return None
    if kind == "revoked":
        own = keys.add_client(folder, "former")
        keys.revoke(folder, "former")
        return own
    if kind == "keys of the other channel":
        own = tmp_path / "swapped"
        own.mkdir()
        shutil.copy(folder / "clients" / "robot" / "control.secret", own / "data.secret")
        shutil.copy(folder / "clients" / "robot" / "data.server", own / "data.server")
        return own
    keys.create(tmp_path / "others", client="stranger")
    stranger = tmp_path / "others" / "clients" / "stranger"
    if kind == "stranger who knows the engine":
        shutil.copy(folder / "clients" / "robot" / "data.server", stranger / "data.server")
    return stranger


@pytest.mark.parametrize(
    "kind",
    ["without keys", "stranger", "stranger who knows the engine", "keys of the other channel", "revoked"],
)
def test_a_client_without_the_right_keys_gets_nothing(folder, tmp_path, publisher, kind):
    wrong = unauthorised(folder, tmp_path, kind)
    with (
        MaskSubscriber(publisher.endpoint, kind="both", keys=wrong) as locked_out,
        MaskSubscriber(publisher.endpoint, keys=folder / "clients" / "robot", every=True) as masks,
    ):
        assert publisher.wait_for_subscriber(60)
        publisher.set_state("cam", "live")
        for frame in range(20):
            publisher.publish(make_scene(frame))
            assert masks.read(60).frame == frame
        assert locked_out.read(0.3) is None
        assert locked_out.sources == ()


def test_refusals_are_logged_once_in_a_while(folder, tmp_path, publisher, caplog):
    wrong = unauthorised(folder, tmp_path, "stranger who knows the engine")
    public = keys.load_client(wrong, "data").public.decode()
    for _ in range(3):
        with MaskSubscriber(publisher.endpoint, keys=wrong) as stranger:
            assert eventually(lambda: public in caplog.text)
            assert stranger.read(0.1) is None
    assert caplog.text.count("not authorised") == 1


def test_a_client_does_not_listen_to_an_engine_it_does_not_know(folder, tmp_path):
    keys.create(tmp_path / "impostor", client="robot")
    shutil.copytree(folder / "authorised", tmp_path / "impostor" / "authorised", dirs_exist_ok=True)
    with (
        Publisher(ANY_PORT, keys=keys.load_server(tmp_path / "impostor", "data")) as impostor,
        Publisher(ANY_PORT) as open_engine,
        MaskSubscriber(impostor.endpoint, keys=folder / "clients" / "robot") as deceived,
        MaskSubscriber(open_engine.endpoint, keys=folder / "clients" / "robot") as demanding,
    ):
        impostor.publish(make_scene(0))
        open_engine.publish(make_scene(0))
        assert deceived.read(0.3) is None
        assert demanding.read(0.3) is None


def test_clients_are_added_and_locked_out_without_a_restart(folder, publisher):
    publisher.publish(make_scene(5))
    late = keys.add_client(folder, "late")
    with MaskSubscriber(publisher.endpoint, keys=late) as masks:
        assert masks.read(60).frame == 5
    keys.revoke(folder, "late")
    with MaskSubscriber(publisher.endpoint, keys=late) as masks:
        assert masks.read(0.3) is None


def test_other_machines_may_connect_with_keys_only(folder):
    with pytest.raises(UsageError, match="--keys DIR"):
        Publisher("tcp://0.0.0.0:0")
    with Publisher("tcp://0.0.0.0:0", keys=keys.load_server(folder, "data")) as publisher:
        port = publisher.endpoint.rpartition(":")[2]
        publisher.publish(make_scene(3))
        with MaskSubscriber(f"tcp://127.0.0.1:{port}", keys=folder / "clients" / "robot") as masks:
            assert masks.read(60).frame == 3


def test_an_ipc_folder_others_can_enter_needs_keys(folder, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    with pytest.raises(UsageError, match=r"others can enter .* \(mode 0755, at most 0700"):
        Publisher(f"ipc://{shared}/masks")
    with Publisher(f"ipc://{shared}/masks", keys=keys.load_server(folder, "data")) as publisher:
        assert publisher.endpoint == f"ipc://{shared}/masks"


def test_a_context_takes_one_set_of_keys(folder):
    context = zmq.Context()
    with (
        Publisher(ANY_PORT, context=context, keys=keys.load_server(folder, "data")),
        pytest.raises(UsageError, match="cannot take them"),
    ):
        Publisher(ANY_PORT, context=context, keys=keys.load_server(folder, "data"))
    context.term()


def test_connected_subscribers_are_counted(folder, publisher):
    assert publisher.subscribers == 0
    with MaskSubscriber(publisher.endpoint, keys=folder / "clients" / "robot"):
        assert eventually(lambda: publisher.subscribers == 1)
        with MaskSubscriber(publisher.endpoint, keys=folder / "clients" / "robot"):
            assert eventually(lambda: publisher.subscribers == 2)
        assert eventually(lambda: publisher.subscribers == 1)
    assert eventually(lambda: publisher.subscribers == 0)
