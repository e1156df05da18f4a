"""Where frames come from: files, folders, cameras, the network and a built-in scene.

Nothing here knows the engine beyond its `Frame`; nothing here runs a thread.
"""

import os
import re
from urllib.parse import unquote, urlsplit

from engine.errors import SourceError, UsageError
from streaming.sources.base import Source
from streaming.sources.camera import CameraSource, is_camera
from streaming.sources.decoder import CaptureFactory
from streaming.sources.demo import DemoSource, is_demo
from streaming.sources.images import ImageSource, is_image_path
from streaming.sources.mcap import McapSource, is_mcap, mcap_path
from streaming.sources.network import SCHEMES, NetworkSource
from streaming.sources.ros import RosSource, is_ros, ros_name
from streaming.sources.video import VideoSource

__all__ = ["Source", "default_name", "is_live_uri", "open_source", "parse_source"]

_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.*)", re.DOTALL)


def open_source(
    uri: str,
    *,
    name: str | None = None,
    loop: bool = False,
    open_timeout_s: float = 5.0,
    read_timeout_s: float = 5.0,
    capture_factory: CaptureFactory | None = None,
) -> Source:
    """Open what `uri` names.

    Args:
        uri: video file, MCAP recording, image file, folder or glob of images, rtsp:// rtsps:// http:// https:// tcp:// udp://
            address, ros:///TOPIC, camera number, /dev/videoN, /dev/v4l/by-id/..., or demo.
        name: name of the source; by default made from the URI.
        loop: files, folders and the demo start again at the end.
        open_timeout_s, read_timeout_s: limits for network streams and ROS topics.
        capture_factory: opens a local camera instead of OpenCV.

    Raises:
        SourceError: it cannot be opened.
        UsageError: the options inside the URI are wrong.
    """
    name = name if name is not None else default_name(uri)
    if is_demo(uri):
        return DemoSource(uri, name=name, loop=loop)
    if is_camera(uri):
        return CameraSource(uri, name=name, capture_factory=capture_factory)
    if is_ros(uri):
        return RosSource(uri, name=name, open_timeout_s=open_timeout_s, read_timeout_s=read_timeout_s)
    if uri.startswith("file://"):
        uri = unquote(urlsplit(uri).path)
    if "://" in uri:
        return NetworkSource(uri, name=name, open_timeout_s=open_timeout_s, read_timeout_s=read_timeout_s)
    if not uri:
        raise SourceError("the source is empty; name a file, folder, camera, address or 'demo'")
    if is_mcap(uri):
        return McapSource(uri, name=name, loop=loop)
    if is_image_path(uri):
        return ImageSource(uri, name=name, loop=loop)
    return VideoSource(uri, name=name, loop=loop)


def is_live_uri(uri: str) -> bool:
    """Whether `uri` names something that may be away now and come back: a camera, a topic, a network stream."""
    return is_camera(uri) or is_ros(uri) or uri.partition("://")[0].lower() in SCHEMES


def parse_source(text: str) -> tuple[str | None, str]:
    """Split `NAME=URI` into (name, uri); (None, text) when `text` is a bare URI.

    A name holds letters, digits, `_`, `.` and `-`, so an address with `=` in its query stays whole; so does
    a file that exists under the whole text.

    Raises:
        UsageError: nothing follows the `=`.
    """
    match = _NAMED.fullmatch(text)
    if match is None or os.path.exists(text):
        return None, text
    name, uri = match.groups()
    if not uri:
        raise UsageError(f"source '{text}' has a name but no URI; write NAME=URI")
    return name, uri


def default_name(uri: str) -> str:
    """A short name for `uri`: the file's stem, the host, or the kind of source."""
    if is_demo(uri):
        return "demo"
    if is_ros(uri):
        return ros_name(uri)
    if is_mcap(uri):
        uri = mcap_path(uri)
    if uri.isascii() and uri.isdigit():
        return f"camera{uri}"
    if "://" in uri and not uri.startswith("file://"):
        stem = re.split(r"[/?]", uri.partition("://")[2].rpartition("@")[2])[0]
    else:
        parts = [part for part in re.split(r"[/\\]+", uri) if part and not re.search(r"[*?\[]", part)]
        stem = os.path.splitext(parts[-1])[0] if parts else ""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-") or "source"
