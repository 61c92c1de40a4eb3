"""provider-core on Modal, deployed from the repository's root: `modal deploy infra/modal/app.py`.

The secret `provider` holds settings as environment variables, the key among them. Fetched models
stay in a volume. Bills do not: volumes have no locks that containers share, and the journal needs
them.
"""

import subprocess

import modal

app = modal.App("provider")


@app.cls(
    image=modal.Image.from_dockerfile("infra/docker/onnxruntime.Dockerfile").entrypoint([]),
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
        self.server = subprocess.Popen(["provider", "serve", "--platform", "modal"])

    @modal.exit()
    def stop(self) -> None:
        """Let it drain, for as long as Modal lets a container end."""
        self.server.terminate()
        self.server.wait()
