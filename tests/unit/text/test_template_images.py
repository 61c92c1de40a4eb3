"""Chat templates and the content parts that stand for images."""

from typing import Any

import pytest

from provider_core.errors import UnsupportedParameter
from provider_core.text.chat_template import FolderChatTemplate

USERS_ONLY = (
    "{% for message in messages %}{% if message.role != 'user' %}{{ raise_exception('no') }}"
    "{% endif %}[{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}"
    "{{ part.text }}{% endif %}{% endfor %}{% endif %}]{% endfor %}"
)
IMAGE = {"type": "image"}
USER: dict[str, Any] = {"role": "user", "content": [IMAGE, {"type": "text", "text": "What?"}]}


def test_parts_are_the_templates() -> None:
    """It writes its placeholder where the image was."""
    template = FolderChatTemplate({"default": USERS_ONLY})
    assert template.render([USER]).text == "[<image>What?]"


def test_instructions_go_before_an_image() -> None:
    """Where a template has no place for a system message."""
    template = FolderChatTemplate({"default": USERS_ONLY})
    system = {"role": "system", "content": "Be brief."}
    assert template.render([system, USER]).text == "[Be brief.\n\n<image>What?]"


def test_a_template_of_strings_refuses_images() -> None:
    """Rather than leave them out."""
    template = FolderChatTemplate(
        {"default": "{% for message in messages %}{{ message.content + '' }}{% endfor %}"}
    )
    with pytest.raises(UnsupportedParameter, match="shows no images"):
        template.render([USER])


def test_a_placeholder_in_a_text_is_the_clients() -> None:
    """It is cut out of what the template wrote, and encoded as plain text."""
    template = FolderChatTemplate({"default": USERS_ONLY}, control_tokens=["<image>"])
    message = {"role": "user", "content": [IMAGE, {"type": "text", "text": "<image>"}]}
    segments = template.render([message]).segments
    assert ("<image>", False) in segments
