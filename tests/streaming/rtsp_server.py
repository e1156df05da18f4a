"""An RTSP server for tests, on gst-rtsp-server from Debian: a process of its own, with the system's Python.

    python3 tests/streaming/rtsp_server.py PORT [WIDTH HEIGHT]

prints "ready" and the port once it listens; PORT 0 takes a free one. Needs python3-gi, gir1.2-gst-rtsp-server-1.0 and
gstreamer1.0-plugins-good.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    """Serve a moving ball as motion JPEG at rtsp://127.0.0.1:PORT/ball until killed."""
    port, width, height = sys.argv[1], *(sys.argv[2:4] or ("160", "120"))
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( videotestsrc is-live=true pattern=ball "
        f"! video/x-raw,format=I420,width={width},height={height},framerate=25/1 "
        "! jpegenc ! rtpjpegpay name=pay0 )"
    )
    factory.set_shared(True)
    server.get_mount_points().add_factory("/ball", factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} cannot be bound")
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
