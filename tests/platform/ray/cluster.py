"""A cluster of Ray on loopback, with our application: `python cluster.py FOLDER PROXY_PORT PORT`.

Runs in the environment of `make client-packages` that has Ray. Says `ready` on standard output when
replicas serve, and ends when standard input does.
"""

import os
import sys
from pathlib import Path

_STORE_BYTES = 100 * 2**20


def main(folder: Path, proxy_port: int, port: int) -> None:
    """Serve until standard input ends."""
    token = folder / "token"
    token.write_text("0" * 64, encoding="utf-8")
    os.environ |= {  # noqa: TID251 - Ray's own, read when it is imported
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray  # noqa: PLC0415 - see above
    from ray import serve  # noqa: PLC0415

    from provider_ray.application import make_app  # noqa: PLC0415

    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "ray"),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": proxy_port})
    serve.run(make_app({"min_replicas": 2, "num_cpus": 0.4, "port": port}))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
