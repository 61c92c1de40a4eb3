"""A SageMaker endpoint: AWS's own client, SageMaker's proxy in the middle, a real server."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from provider_core.settings import load_settings
from tests.platform.sagemaker.runtime_proxy import RuntimeProxy, runtime_proxy
from tests.platform.scripted_process import PlatformProcess, platform_process
from tests.serving import KEY
from tests.sse_checker import check_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}
LONG: dict[str, Any] = {**CHAT, "ignore_eos": True, "max_tokens": 2000}
DEADLINES = {"PROVIDER_SAGEMAKER_DEADLINE_S": "1.5", "PROVIDER_SAGEMAKER_STREAM_DEADLINE_S": "2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def container(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[PlatformProcess]:
    """The container, with deadlines that a test can wait for and a key from somewhere else."""
    folder = tmp_path_factory.mktemp("sagemaker")
    key = {"PROVIDER_API_KEY": "env://ENDPOINT_KEY", "ENDPOINT_KEY": KEY}
    async with platform_process(folder, "sagemaker", {**DEADLINES, **key}) as process:
        await process.until_logged("server.ready")
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sagemaker(container: PlatformProcess) -> AsyncIterator[RuntimeProxy]:
    """SageMaker in front of it."""
    async with runtime_proxy(await url_of(container)) as proxy:
        await proxy.until_healthy()
        yield proxy


async def url_of(container: PlatformProcess) -> str:
    """Where a container listens: it tells people."""
    pattern = re.compile(r"listens on http://0\.0\.0\.0:(\d+)")
    await container.until(lambda: pattern.search(container.stderr) is not None)
    found = pattern.search(container.stderr)
    assert found is not None
    return f"http://127.0.0.1:{found[1]}"


class Caller:
    """AWS's client."""

    def __init__(self, sagemaker: RuntimeProxy) -> None:
        self._client = Session().create_client(
            "sagemaker-runtime",
            region_name="us-east-1",
            endpoint_url=sagemaker.url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"max_attempts": 0}),
        )

    async def invoke(self, body: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """`InvokeEndpoint`: the body and all else that it returns."""
        return await asyncio.to_thread(self._invoke, body, options)

    def _invoke(self, body: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        answer = self._client.invoke_endpoint(
            EndpointName="e", ContentType="application/json", Body=json.dumps(body), **options
        )
        return json.loads(answer["Body"].read()), answer

    async def stream(self, body: Any, **options: Any) -> tuple[list[bytes], dict[str, Any]]:
        """`InvokeEndpointWithResponseStream`: the parts and all else."""
        return await asyncio.to_thread(self._stream, body, options)

    def _stream(self, body: Any, options: dict[str, Any]) -> tuple[list[bytes], dict[str, Any]]:
        answer = self._client.invoke_endpoint_with_response_stream(
            EndpointName="e", ContentType="application/json", Body=json.dumps(body), **options
        )
        return [event["PayloadPart"]["Bytes"] for event in answer["Body"]], answer


@pytest.fixture
def caller(sagemaker: RuntimeProxy) -> Caller:
    """Somebody whom SageMaker lets in."""
    return Caller(sagemaker)


async def test_an_invocation_is_answered_and_billed_to_the_endpoint_s_key(
    caller: Caller, container: PlatformProcess
) -> None:
    """The body says what it wants; the answer's ids come in the attributes."""
    body, answer = await caller.invoke(CHAT, InferenceId="inference-1")
    assert body["choices"][0]["message"]["content"] == "Hello!"
    assert answer["ContentType"].startswith("application/json")
    told = dict(pair.split("=") for pair in answer["CustomAttributes"].split(";"))
    assert told["x-generation-id"] == body["id"]
    await container.until(lambda: bool(container.usage))
    bill = container.usage[0]
    assert (bill["generation_id"], bill["platform"]) == (body["id"], "sagemaker")
    assert bill["api_key_id"] == "key_fixed"
    assert "KEY is what env://ENDPOINT_KEY holds" in container.stderr
    assert KEY not in container.stderr
    assert bill["client_request_id"] == "inference-1"


@pytest.mark.parametrize(
    ("body", "attributes", "expected"),
    [
        ({"model": "test-model", "prompt": "hi"}, "", "text_completion"),
        ({**CHAT, "max_tokens": 9}, "route=/v1/messages", "message"),
        (CHAT, f"trace-id; authorization = Bearer {KEY}", "chat.completion"),
    ],
)
async def test_the_route_is_the_attributes_or_the_body_s(
    caller: Caller, body: Any, attributes: str, expected: str
) -> None:
    """What else a caller's attributes hold is left alone."""
    options = {"CustomAttributes": attributes} if attributes else {}
    answered, _ = await caller.invoke(body, **options)
    assert expected in {answered.get("object"), answered.get("type")}


async def test_a_streamed_answer_arrives_in_parts(caller: Caller) -> None:
    """They respect no event's end, and together they are the stream."""
    parts, answer = await caller.stream({**CHAT, "stream": True})
    assert len(parts) > 2
    assert check_stream(b"".join(parts)).texts == {0: "Hello!"}
    assert answer["ContentType"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("body", "attributes", "status", "message"),
    [
        ({**CHAT, "model": "no-such"}, "x-title=t", 404, "does not exist"),
        (CHAT, "x-api-key=sk-wrong-key", 401, "nobody has this key"),
        ({"text": 1}, "x-title=t", 400, "names no route"),
        ([CHAT], "x-title=t", 400, "names no route"),
        (CHAT, "route=//evil", 400, "route must be a path"),
        (CHAT, "route=/v1/no-such", 404, "no such path"),
    ],
)
async def test_a_refusal_reaches_the_caller_as_it_is(
    caller: Caller, body: Any, attributes: str, status: int, message: str
) -> None:
    """SageMaker wraps it, status and all."""
    with pytest.raises(ClientError) as raised:
        await caller.invoke(body, CustomAttributes=attributes)
    error = raised.value.response
    assert error["OriginalStatusCode"] == status
    assert message in error["OriginalMessage"]


async def test_a_whole_answer_ends_before_sagemaker_gives_up(
    caller: Caller, container: PlatformProcess
) -> None:
    """It costs nothing: nobody would get it."""
    with pytest.raises(ClientError) as raised:
        await caller.invoke(
            LONG,
            InferenceId="another",
            CustomAttributes="x-request-id=late;x-request-deadline-ms=99999",
        )
    assert raised.value.response["OriginalStatusCode"] == 504
    await container.until(lambda: bool(bills_of(container, "late")))
    (bill,) = bills_of(container, "late")
    assert (bill["error_code"], bill["cost"]) == ("deadline_exceeded", "0")


async def test_a_stream_is_ended_in_form_before_sagemaker_gives_up(caller: Caller) -> None:
    """Its deadline is another one, and a shorter one of the caller's counts."""
    parts, _ = await caller.stream(
        {**LONG, "stream": True}, CustomAttributes="x-request-deadline-ms=300"
    )
    error = check_stream(b"".join(parts)).error
    assert error is not None
    assert error["code"] == "deadline_exceeded"


def bills_of(container: PlatformProcess, request_id: str) -> list[dict[str, Any]]:
    """What was charged for a request."""
    return [event for event in container.usage if event["client_request_id"] == request_id]


async def test_a_caller_that_leaves_is_seen_behind_the_second_call(
    sagemaker: RuntimeProxy, container: PlatformProcess
) -> None:
    """The connection's end goes through to the generation."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sagemaker.container_url[17:]))
    body = json.dumps({**LONG, "stream": True}).encode()
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\n"
        "X-Amzn-SageMaker-Custom-Attributes: x-request-id=left\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await reader.readuntil(b"data: ")
    writer.close()
    await container.until(lambda: bool(bills_of(container, "left")))
    (bill,) = bills_of(container, "left")
    assert bill["status"] == "cancelled"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/execution-parameters", '"MaxConcurrentTransforms": 4'),
        ("/openapi.json", '"/v1/chat/completions"'),
    ],
)
async def test_what_needs_no_key_is_told(sagemaker: RuntimeProxy, path: str, expected: str) -> None:
    """How a batch should be sent, by SageMaker itself; and what the server can do."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sagemaker.container_url}{path}") as answer,
    ):
        assert answer.status == 200
        assert expected in await answer.text()


async def test_a_stop_signal_lets_a_stream_end(tmp_path: Path) -> None:
    """SageMaker waits 30 s before it kills."""
    async with platform_process(tmp_path, "sagemaker", {}) as container:
        await container.until_logged("server.ready")
        async with runtime_proxy(await url_of(container)) as sagemaker:
            body = {**LONG, "stream": True, "max_tokens": 200}
            streaming = asyncio.create_task(Caller(sagemaker).stream(body))
            await until_running(container)
            assert await container.stop(signal.SIGTERM) == 0
            parts, _ = await streaming
    stream = check_stream(b"".join(parts))
    assert (stream.error, len(container.usage)) == (None, 1)


async def until_running(container: PlatformProcess) -> None:
    """Until a generation is in the journal, which is when it began."""
    journal = container.folder / "data/journal"
    await container.until(
        lambda: any(b'"rec":"O"' in path.read_bytes() for path in journal.glob("*.jnl"))
    )


async def test_the_port_and_the_limits_are_sagemaker_s() -> None:
    """What the container must be, unless somebody says otherwise."""
    settings = load_settings(platform="sagemaker")
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert settings.limits.max_body_bytes == 6_291_456
    assert settings.server.grace_s == 30
