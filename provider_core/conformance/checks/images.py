"""Images in messages: seen, or refused with a 400 that says where."""

from base64 import b64encode
from io import BytesIO
from typing import Any

from PIL import Image

from provider_core.conformance.check import Group
from provider_core.conformance.exchange import Reply
from provider_core.conformance.probe import Probe
from provider_core.conformance.verdict import NotApplicable, require
from provider_core.conformance.wire_rules import check_completion, check_error

GROUP = Group("images")

FORMATS = ("jpeg", "png", "gif", "webp")
_SIDE = 64
_REMOTE = "https://upload.wikimedia.org/wikipedia/commons/4/47/PNG_transparency_demonstration_1.png"


def data_url(form: str) -> str:
    """A small picture of one colour in one format."""
    file = BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), (200, 30, 30)).save(file, form.upper())
    return f"data:image/{form};base64,{b64encode(file.getvalue()).decode()}"


def message(*urls: str) -> list[dict[str, Any]]:
    """A question about some images."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What colour is this?"}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": parts}]


async def _show(probe: Probe, *urls: str) -> Reply:
    """Show images.

    Raises:
        NotApplicable: The model reads text only, and says so in the right way.
    """
    reply = await probe.ask(message(*urls))
    if reply.status in {400, 404} and not probe.subject.sees:
        where = "" if reply.status == 404 else f", naming {reply.json()['error'].get('param')}"
        raise NotApplicable(f"the model reads text only, and refuses with {reply.status}{where}")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    check_completion(reply.json(), kind="chat")
    require(probe.subject.sees is not False, "an image is taken, by a model listed without images")
    return reply


def _check_format(form: str) -> None:
    @GROUP.check(form, f"image/{form}, in the request")
    async def shown(probe: Probe) -> str:
        """Base64 in a data URL."""
        reply = await _show(probe, data_url(form))
        return f"seen, {reply.json()['usage']['prompt_tokens']} prompt tokens"


for _form in FORMATS:
    _check_format(_form)


@GROUP.check("several", "Several images in one request")
async def several(probe: Probe) -> str:
    """Two, of different formats."""
    await _show(probe, data_url("png"), data_url("jpeg"))
    return "two images are seen"


@GROUP.check("url", "An image by its address")
async def url(probe: Probe) -> str:
    """A public picture; a provider that cannot reach it says 400."""
    await _show(probe, data_url("png"))
    reply = await probe.ask(message(_REMOTE))
    if reply.status == 400:
        raise NotApplicable(f"refused: {reply.excerpt}")
    require(reply.status == 200, f"status {reply.status}: {reply.excerpt}")
    return "fetched and seen"


@GROUP.check("refused", "A broken image, or one that cannot be seen, is a 400")
async def refused(probe: Probe) -> str:
    """Never a failure of the server, and never silently left out."""
    broken = ("data:image/png;base64,bm90IGFuIGltYWdl", "data:image/png;base64,!!", "ftp://x/y")
    for bad in broken:
        reply = await probe.ask(message(bad))
        error = check_error(reply, 400, integer_code=probe.endpoint.is_openrouter)
    return f"400 each, the last one naming {error.get('param')}"
