"""provider-core on Modal, deployed from the repository's root: `modal deploy infra/modal/app.py`.

The secret `provider` holds settings as environment variables, the key among them. Fetched models
stay in a volume. Bills do not: volumes have no locks that containers share, and the journal needs
them.
"""

import os
import subprocess
import threading

import modal

app = modal.App("provider")
# Modal's own process begins in the image and reads this file from /root.
image = modal.Image.from_dockerfile("infra/docker/onnxruntime.Dockerfile").dockerfile_commands(
    "USER root", "ENTRYPOINT []"
)


@app.cls(
    image=image,
    cpu=4,
    memory=8192,
    volumes={"/data/models": modal.Volume.from_name("provider-models", create_if_missing=True)},
    secrets=[modal.Secret.from_name("provider")],
    scaledown_window=300,
)
@modal.concurrent(max_inputs=96, target_inputs=32)
class Provider:
    """One container: a server, which Modal's proxy passes requests to."""

    @modal.web_server(8000, startup_timeout=60)
    def serve(self) -> None:
        """Start it; it is up when its port accepts, before the model is loaded."""
        self.is_stopping = False
        self.server = subprocess.Popen(["provider", "serve", "--platform", "modal"])
        threading.Thread(target=self.end_with_server, daemon=True).start()

    def end_with_server(self) -> None:
        """End the container if the server ends by itself: Modal has no health checks."""
        exit_code = self.server.wait()
        if not self.is_stopping:
            os._exit(exit_code)

    @modal.exit()
    def stop(self) -> None:
        """Let the server drain, for as long as Modal lets a container end."""
        self.is_stopping = True
        self.server.terminate()
        self.server.wait()
