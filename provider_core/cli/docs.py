"""`provider docs`: a model's page as a file."""

from pathlib import Path
from typing import Annotated

import typer


def docs(
    model: Annotated[str, typer.Argument(help="Id or alias of the model.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="HTML file to write.")],
    *,
    url: Annotated[str, typer.Option(help="The running server.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None,
        typer.Option(envvar="PROVIDER_API_KEY", help="Only if its list of models is private."),
    ] = None,
) -> None:
    """Write the page of a model that a running server serves.

    The page names that address in its examples, unless `provider.base_url` is set there.
    """
    import asyncio

    from provider_core.cli.outputs import check_file
    from provider_core.errors import ConfigurationError

    check_file("FILE", out)
    page = asyncio.run(_fetch(url, model, key))
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {out}")


async def _fetch(url: str, model: str, key: str | None) -> str:
    """The page.

    Raises:
        ConfigurationError: The key cannot be one.
        ProviderError: There is no server, or no such model.
    """
    from urllib.parse import quote

    import aiohttp

    from provider_core.errors import ConfigurationError, ModelNotFound, ProviderError

    if key is not None and not (key.isascii() and key.isprintable()):
        raise ConfigurationError("--key holds characters that no API key has")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    address = f"{url.rstrip('/')}/docs/models/{quote(model)}"
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(address) as response,
        ):
            if response.status == 404:
                raise ModelNotFound(f"{url} serves no model {model!r}")
            if response.status != 200:
                raise ProviderError(f"{address} answered with status {response.status}")
            return await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProviderError(f"cannot reach {url}: {type(error).__name__}") from error
