"""`provider chat` against a scripted server: what is sent, shown and said when it goes wrong."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from provider_core.cli import make_cli
from provider_core.errors import ConfigurationError, ProviderError

ROOT = Path(__file__).parents[3]


class ScriptedServer(ThreadingHTTPServer):
    """Answers each request with the next of its scripted answers and remembers what it was asked.

    Attributes:
        answers: Pairs of status and body.
        asked: Triples of path, authorization header and body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str | None, Any]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        status, answer = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A running scripted server."""
    with ScriptedServer() as scripted:
        thread = threading.Thread(target=scripted.serve_forever, args=(0.01,))
        thread.start()
        yield scripted
        scripted.shutdown()
        thread.join()


MODELS = (200, b'{"data": [{"id": "tiny"}, {"id": "other"}]}')


def said(*pieces: str) -> tuple[int, bytes]:
    """A streamed answer."""
    chunks = [{"choices": [{"delta": {"role": "assistant"}}]}]
    chunks += [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    chunks += [{"choices": [], "usage": {}}]  # type: ignore[dict-item]  # a chunk as it is sent
    lines = [": keep-alive", *(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"]
    return 200, "".join(f"{line}\n\n" for line in lines).encode()


def chat(server: ScriptedServer, typed: str, *options: str) -> Result:
    """Run `provider chat` with this input."""
    arguments = ["chat", "--url", server.url, *options]
    return CliRunner(env={"PROVIDER_API_KEY": ""}).invoke(make_cli(), arguments, input=typed)


def test_answers_are_printed(server: ScriptedServer) -> None:
    """Piped input is a question, and nothing but the answer is printed."""
    server.answers = [MODELS, said("Hel", "lo!")]

    result = chat(server, "Hi\n")

    assert (result.exit_code, result.output) == (0, "Hello!\n")


def test_each_line_is_a_turn_of_one_conversation(server: ScriptedServer) -> None:
    """The model is told what was said before."""
    server.answers = [MODELS, said("Hello!"), said("Bye!")]

    chat(server, "Hi\n\nSee you\n")

    assert [body["messages"] for _, _, body in server.asked[1:]] == [
        [{"role": "user", "content": "Hi"}],
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "See you"},
        ],
    ]


def test_exit_ends_it(server: ScriptedServer) -> None:
    """Nothing after `/exit` is sent."""
    server.answers = [MODELS]

    result = chat(server, "/exit\nHi\n")

    assert (result.exit_code, result.output, len(server.asked)) == (0, "", 1)


def test_the_first_model_is_the_default(server: ScriptedServer) -> None:
    """Whoever serves one model need not name it."""
    server.answers = [MODELS, said("Hello!")]

    chat(server, "Hi\n")

    path, _, body = server.asked[1]
    assert (path, body["model"], body["stream"]) == ("/v1/chat/completions", "tiny", True)


def test_a_named_model_is_not_looked_up(server: ScriptedServer) -> None:
    """`--model` goes straight to the conversation."""
    server.answers = [said("Hello!")]

    chat(server, "Hi\n", "--model", "other")

    assert [body["model"] for _, _, body in server.asked] == ["other"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_url_may_end_in_v1(server: ScriptedServer, suffix: str) -> None:
    """Both the server's address and an OpenAI base URL are understood."""
    server.answers = [said("Hello!")]

    chat(server, "Hi\n", "--model", "tiny", "--url", server.url + suffix)

    assert [path for path, _, _ in server.asked] == ["/v1/chat/completions"]


def test_the_key_is_sent_as_a_bearer_token(server: ScriptedServer) -> None:
    """`--key` authenticates every request."""
    server.answers = [MODELS, said("Hello!")]

    chat(server, "Hi\n", "--key", "sk-1")

    assert [key for _, key, _ in server.asked] == ["Bearer sk-1", "Bearer sk-1"]


def test_control_characters_are_not_shown(server: ScriptedServer) -> None:
    """A model cannot move the cursor, rename the window or ring."""
    server.answers = [said("a\x1b[2J\x07b\x9bc\n\td")]

    result = chat(server, "Hi\n", "--model", "tiny")

    assert result.output == "a[2Jbc\n\td\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"{}"), "the server wants a key: pass --key or set PROVIDER_API_KEY"),
        ((429, b'{"error": {"message": "slow down"}}'), "slow down"),
        ((500, b"<html>"), "the server answered with status 500"),
        ((200, b'data: {"error": {"message": "it broke"}}\n\n'), "it broke"),
        ((200, b'data: {"error": "as text"}\n\n'), "as text"),
        ((200, b"data: {\n\n"), "broke off"),
        ((200, b"data: []\n\ndata: 7\n\n"), "broke off"),
    ],
)
def test_a_failure_is_said_in_one_line(
    server: ScriptedServer, answer: tuple[int, bytes], message: str
) -> None:
    """What the server refuses, and why, ends a piped conversation."""
    server.answers = [answer]

    result = chat(server, "Hi\n", "--model", "tiny")

    assert isinstance(result.exception, ProviderError)
    assert message in result.exception.message


@pytest.mark.parametrize("body", [b'{"data": []}', b"[]", b"<html>"])
def test_a_server_without_models_is_said_to_be_one(server: ScriptedServer, body: bytes) -> None:
    """Some other program may listen at that address."""
    server.answers = [(200, body)]

    result = chat(server, "Hi\n")

    assert isinstance(result.exception, ProviderError)
    assert "lists no model" in result.exception.message


def test_no_server_is_explained(server: ScriptedServer) -> None:
    """The message says how to start one."""
    server.server_close()

    result = chat(server, "Hi\n")

    assert isinstance(result.exception, ProviderError)
    assert result.exception.message.startswith(f"no server answers at {server.url} (")
    assert result.exception.message.endswith("start one with: provider serve")


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8000", "http://", "http://h:99999"])
def test_an_odd_url_is_refused(url: str) -> None:
    """Only HTTP is spoken."""
    result = CliRunner().invoke(make_cli(), ["chat", "--url", url], input="")

    assert isinstance(result.exception, ConfigurationError)


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-é"])
def test_an_odd_key_is_refused_and_not_shown(key: str) -> None:
    """It could not be sent, and an error must not repeat it."""
    result = CliRunner().invoke(make_cli(), ["chat", "--key", key], input="")

    assert isinstance(result.exception, ConfigurationError)
    assert key not in result.exception.message


def test_help_names_the_variable_of_the_key(tmp_path: Path) -> None:
    """The key needs not be on the command line, where other users can see it."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(make_cli(), ["chat", "--help"])

    assert "PROVIDER_API_KEY" in result.output


def test_a_terminal_gets_prompts_and_survives_errors(server: ScriptedServer) -> None:
    """A person is greeted, told what failed, and can go on."""
    server.answers = [MODELS, (429, b'{"error": {"message": "slow down"}}'), said("Hello!")]
    terminal, terminal_of_child = pty.openpty()
    command = "from provider_core.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "chat", "--url", server.url],
        stdin=terminal_of_child,
        stdout=terminal_of_child,
        stderr=terminal_of_child,
        env={"PYTHONPATH": str(ROOT), "TERM": "dumb"},
    ) as child:
        os.close(terminal_of_child)
        os.write(terminal, b"Hi\nHi again\n/exit\n")
        shown = _read_all(terminal)
    os.close(terminal)

    assert child.returncode == 0
    assert f"tiny at {server.url} - /exit to leave" in shown
    assert "provider: slow down" in shown
    assert "Hello!" in shown
    assert shown.count("> ") == 3
    messages = [body["messages"] for _, _, body in server.asked[1:]]
    assert messages == [[{"role": "user", "content": text}] for text in ("Hi", "Hi again")]


def _read_all(terminal: int) -> str:
    """What was shown until the last process that could write is gone."""
    shown = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := os.read(terminal, 4096):
            shown += piece
    return shown.decode()
