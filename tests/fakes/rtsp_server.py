"""An RTSP server on a free port, for the tests: `python3 rtsp_server.py PIPELINE [USER PASSWORD]`.

Prints its port, then serves the pipeline at /live until it is killed. Runs with the system's Python, since Debian's
python3-gi belongs to that: it is GStreamer's own server, not a fake.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(pipeline: str, *account: str) -> None:
    Gst.init(None)
    media = GstRtspServer.RTSPMediaFactory()
    media.set_launch(f"( {pipeline} )")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/live", media)
    if account:
        _only_for(server, media, *account)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


def _only_for(server, media, user: str, password: str) -> None:  # type: ignore[no-untyped-def]
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{what}", True)
    media.set_permissions(permissions)


if __name__ == "__main__":
    main(*sys.argv[1:])
