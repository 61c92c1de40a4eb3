"""`provider chat`: a conversation in the terminal with a running server."""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import import_module
from typing import Annotated

import typer

from provider_core.errors import ProviderError

DEFAULT_URL = "http://127.0.0.1:8000"

# A model's text must not steer the terminal: of all control characters only these pass.
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})


def chat(
    *,
    url: Annotated[str, typer.Option(help="Where the server listens.")] = DEFAULT_URL,
    key: Annotated[
        str | None, typer.Option(envvar="PROVIDER_API_KEY", help="API key of the server.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model to talk to; default: the first one listed.")
    ] = None,
) -> None:
    """Talk to a model. A line is a turn; /exit or Ctrl-D ends, Ctrl-C stops an answer.

    Piped input is read line by line too, and only the answers are printed.
    """
    from provider_core.cli.chat_server import ChatServer

    server = ChatServer(url, key)
    model = model or server.first_model()
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # not on every system; gives `input` editing and history
            import_module("readline")
        typer.echo(f"{model} at {url} - /exit to leave")
    messages: list[dict[str, str]] = []
    for text in _turns(prompt="> " if is_terminal else None):
        messages.append({"role": "user", "content": text})
        try:
            with closing(server.stream(model, messages)) as pieces:
                answer = _show(pieces)
        except ProviderError as error:
            if not is_terminal:
                raise
            typer.echo(f"provider: {error.message}", err=True)
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})


def _turns(prompt: str | None) -> Iterator[str]:
    """What the person says, empty lines left out, until the end of input or `/exit`."""
    while True:
        try:
            line = input(prompt) if prompt else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if (not line and not prompt) or line.strip() == "/exit":
            return
        if line.strip():
            yield line.rstrip("\n")


def _show(pieces: Iterator[str]) -> str:
    """Print an answer as it comes; Ctrl-C keeps what was said so far."""
    said = ""
    try:
        for piece in pieces:
            said += piece
            typer.echo(piece.translate(_CONTROLS), nl=False)
    except KeyboardInterrupt:
        typer.echo(" (stopped)", nl=False, err=True)
    typer.echo()
    return said
