"""How a source is named and chosen."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import SourceError, UsageError
from streaming.sources import default_name, open_source, parse_source
from streaming.sources.base import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("front=0", ("front", "0")),
        ("left.cam-2=/dev/video0", ("left.cam-2", "/dev/video0")),
        ("film.mp4", (None, "film.mp4")),
        ("rtsp://host/live?channel=1", (None, "rtsp://host/live?channel=1")),
        ("gate=rtsp://u:p=w@host/live?channel=1", ("gate", "rtsp://u:p=w@host/live?channel=1")),
        ("demo://?seed=3", (None, "demo://?seed=3")),
        ("a=demo://?seed=3", ("a", "demo://?seed=3")),
        ("./take=1.mp4", (None, "./take=1.mp4")),
        ("=x", (None, "=x")),
    ],
)
def test_a_name_is_split_off_only_where_there_is_one(text: str, expected: tuple[str | None, str]) -> None:
    assert parse_source(text) == expected


def test_a_file_with_an_equals_sign_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_source("take=1.png") == ("take", "1.png")
    assert cv2.imwrite("take=1.png", np.zeros((4, 4, 3), np.uint8))
    assert parse_source("take=1.png") == (None, "take=1.png")
    with open_source("take=1.png") as source:
        assert source.name == "take-1"


def test_a_name_without_a_uri_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="NAME=URI"):
        parse_source("front=")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("demo://?seed=1", "demo"),
        ("7", "camera7"),
        ("rtsp://u:p/w?x@cam.local:554/a", "cam.local-554"),
        ("/data/my walk.mp4", "my-walk"),
        ("/data/walk/*.png", "walk"),
        ("*.png", "source"),
    ],
)
def test_a_source_without_a_name_is_called_after_what_it_reads(uri: str, name: str) -> None:
    assert default_name(uri) == name


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://user:secret@host:554/a", "rtsp://user:***@host:554/a"),
        ("rtsp://user:s@cr/e?t@host/a", "rtsp://user:***@host/a"),
        ("rtsp://user@host/a", "rtsp://user@host/a"),
        ("http://host/a?id=1&token=abc&password=secret#x", "http://host/a?id=1&token=***&password=***#x"),
        ("tcp://host:5000", "tcp://host:5000"),
        ("mail:user:pw@x.mp4", "mail:user:pw@x.mp4"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@pytest.mark.parametrize("uri", ["gopher://host/x", "rtps://user:secret@host/x"])
def test_unknown_schemes_are_named(uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    message = str(caught.value)
    assert uri.partition(":")[0] + "://" in message
    assert "rtsp://" in message
    assert "secret" not in message
    assert "\n" not in message


def test_an_empty_uri_is_refused() -> None:
    with pytest.raises(SourceError, match="empty"):
        open_source("")


def test_file_urls_are_paths(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    assert cv2.imwrite(str(path), np.zeros((4, 5, 3), np.uint8))
    with open_source(path.as_uri()) as source:
        assert source.size == (4, 5)
