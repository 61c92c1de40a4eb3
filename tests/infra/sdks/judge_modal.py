"""Deploys an app with Modal's own client, to a control plane of ours on loopback."""

import asyncio
import runpy
import threading
from pathlib import Path
from typing import Any

import modal
from google.protobuf.json_format import MessageToDict
from judging import judge
from modal_control_plane import ControlPlane
from modal_proto import api_pb2


def read(path: Path) -> dict[str, Any]:
    """What the client asks Modal for."""
    app = runpy.run_path(str(path), run_name="app")["app"]
    control_plane = ControlPlane()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port = asyncio.run_coroutine_threadsafe(control_plane.start(), loop).result()
    credentials = ("ak-1", "as-1")
    url = f"http://127.0.0.1:{port}"
    with modal.Client(url, api_pb2.CLIENT_TYPE_CLIENT, credentials) as client:
        app.deploy(client=client, environment_name="main")

    (created,) = control_plane.asked(api_pb2.FunctionCreateRequest)
    return {
        "function": MessageToDict(created.function, preserving_proto_field_name=True),
        "dockerfiles": [
            list(each.image.dockerfile_commands)
            for each in control_plane.asked(api_pb2.ImageGetOrCreateRequest)
        ],
        "files": sorted(
            file.filename
            for each in control_plane.asked(api_pb2.MountGetOrCreateRequest)
            for file in each.files
        ),
        "secrets": [
            each.deployment_name for each in control_plane.asked(api_pb2.SecretGetOrCreateRequest)
        ],
    }


if __name__ == "__main__":
    judge(read)
