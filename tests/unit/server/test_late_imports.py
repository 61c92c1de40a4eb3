"""What a process imports before it is needed: nothing that something else could wait for."""

import subprocess
import sys
from pathlib import Path


def test_a_model_begins_to_load_before_the_server_is_imported() -> None:
    """What a process needs to begin with imports no web server: that runs behind the weights."""
    code = "import provider_core.server.process"
    assert not _imported_by(code) & {"aiohttp", "jinja2", "tokenizers", "prometheus_client"}


def test_the_command_line_imports_no_command() -> None:
    """What a command needs it imports itself, `serve` before all others."""
    heavy = {"aiohttp", "pydantic", "sqlite3", "jinja2", "rich", "structlog", "onnxruntime"}
    assert not _imported_by("import provider_core.cli") & heavy


_SERVE = """
import os, signal
from provider_core.cli import main
class Greeted:
    def write(self, text):
        if "listens on" in text:
            imported.update(sys.modules)
            os.kill(os.getpid(), signal.SIGTERM)
    def flush(self):
        pass
imported = set()
sys.stderr = Greeted()
sys.argv[1:] = ["serve", "--port", "0", "--data-dir", {folder!r}]
try:
    main()
except SystemExit:
    pass
"""


def test_a_server_that_is_ready_has_imported_only_what_it_needs_at_once(tmp_path: Path) -> None:
    """Images, grammars and reports wait until somebody asks for them."""
    imported = _imported_by(_SERVE.format(folder=str(tmp_path)), "imported")
    assert "provider_core.server.app" in imported
    packages = {"PIL", "llguidance", "rich", "httpx", "openai", "torch", "transformers"}
    packages |= {"botocore", "huggingface_hub", "obstore", "stamina"}
    modules = {f"provider_core.{name}" for name in ("conformance", "loadtest", "billing.audit")}
    assert not imported & (packages | modules)


def _imported_by(code: str, names: str = "sys.modules") -> set[str]:
    """The names of the modules that a process has imported after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*{names})"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return set(done.stdout.splitlines()[-1].split())
