"""What listings say a model can do is what its requests may ask."""

from dataclasses import replace
from typing import Any

import pytest

from provider_core.dialects.openrouter.parameters import supported_parameters
from provider_core.server.features import features, listed
from provider_core.server.models import ServedModel
from provider_core.testing import ScriptedRunner
from provider_core.text.chat_syntax import ChatSyntax
from provider_core.text.reasoning import REASONING_FAMILIES
from provider_core.text.tool_parsers import TOOL_FAMILIES
from provider_core.types import ModelSpec
from tests.serving import HERMES, Serving, saying, scripted_runner, serving

TOOLS = next(iter(TOOL_FAMILIES.values()))
REASONING = next(iter(REASONING_FAMILIES.values()))


def model_of(served: Serving) -> ServedModel:
    """The one that is served."""
    return served.server.models.find_ready("test-model")


async def test_a_plain_chat_model() -> None:
    """Text, constrained or not, with log probabilities; no tools, no reasoning."""
    async with serving() as served:
        assert features(model_of(served)) == {"chat", "logprobs", "json_mode", "structured_outputs"}


async def test_a_model_without_a_template_completes_only() -> None:
    """Nothing that belongs to chat."""
    async with serving(chat=False) as served:
        model = model_of(served)
        assert model.chat_template is None
        assert features(model) == {"logprobs"}


@pytest.mark.parametrize(
    ("syntax", "feature"),
    [(ChatSyntax(tools=TOOLS), "tools"), (ChatSyntax(reasoning=REASONING), "reasoning")],
)
async def test_what_the_template_shows_is_listed(syntax: ChatSyntax, feature: str) -> None:
    """Tools and reasoning, each on its own."""
    async with serving() as served:
        model = replace(model_of(served), syntax=syntax)
        found = features(model)

    assert {"tools", "reasoning"} & found == {feature}


async def test_what_an_engine_lacks_is_not_listed() -> None:
    """Neither as a feature nor as a parameter."""

    def make(model: ModelSpec) -> ScriptedRunner:
        runner = scripted_runner()(model)
        lacking = frozenset({"grammar", "logprobs", "top_a"})
        runner.info = replace(runner.info, unsupported_params=lacking)
        return runner

    async with serving(make) as served:
        model = model_of(served)
        shown = supported_parameters(listed(model))
        best = await served.post(
            "/v1/completions", {"model": "test-model", "prompt": "x", "best_of": 2}
        )

    assert features(model) == {"chat"}
    assert not {"top_a", "logprobs", "top_logprobs", "response_format"} & set(shown)
    assert "top_k" in shown
    assert (best.status, (await best.json())["error"]["param"]) == (400, "best_of")


async def test_reasoning_cannot_be_cut_without_grammars() -> None:
    """A budget is a grammar; what asks for none is served."""

    def make(model: ModelSpec) -> ScriptedRunner:
        runner = saying("Hello!")(model)
        runner.info = replace(runner.info, unsupported_params=frozenset({"grammar"}))
        return runner

    async with serving(make, chat_template=HERMES) as served:
        assert (await served.chat()).status == 200
        response = await served.chat(reasoning={"max_tokens": 5})
        error = (await response.json())["error"]

    assert (response.status, error["param"]) == (400, "reasoning")


async def test_a_plugin_may_declare_more() -> None:
    """What the spec says already stays."""
    async with serving() as served:
        model = model_of(served)
        model.spec = replace(model.spec, features=frozenset({"reasoning"}))

    assert listed(model).features >= {"reasoning", "chat"}


async def test_a_model_that_sees_takes_images() -> None:
    """Text first."""

    class Eye:
        """Looks at nothing."""

        image_token_id = 0

        def num_image_tokens(self, height: int, width: int) -> int:
            """Never asked."""
            raise AssertionError

        def encode_image(self, pixels: Any) -> Any:
            """Never asked."""
            raise AssertionError

    async with serving() as served:
        model = replace(model_of(served), image_encoder=Eye())

    assert listed(model).input_modalities == ("text", "image")
