"""Chats with images, over the real server and a scripted runner that sees."""

import asyncio
import io
import json
import threading
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image

from provider_core import hookimpl
from provider_core.errors import DeadlineExceeded, RateLimited, Unavailable
from provider_core.images.picture import DecodedImage
from provider_core.interfaces import Batch
from provider_core.server.images import PromptImages
from provider_core.testing import ScriptedRunner
from tests.serving import EOS, VOCAB_SIZE, Serving, ids_of, make_model_dir, saying, serving

PATH = "/v1/chat/completions"
SCHEMA_OF_NOTHING = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
PLACEHOLDER = VOCAB_SIZE - 3  # <|endoftext|>
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}"
    "<|endoftext|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


class SeeingRunner(ScriptedRunner):
    """Sees one vector in each column of a picture: its mean colour. Keeps what it was fed."""

    image_token_id = PLACEHOLDER

    def __init__(self) -> None:
        super().__init__(
            vocab_size=VOCAB_SIZE,
            reply=[*ids_of("I see."), EOS],
            on_execute=self._note,
            num_cache_blocks=64,
        )
        self.fed: dict[int, list[float]] = {}  # by position
        self.num_looks = 0
        self.is_broken = False
        self.num_unseen = 0  # columns, for which there is no vector
        self.num_looking = self.most_looking = 0
        self.may_end = threading.Event()  # a look
        self.may_end.set()

    def num_image_tokens(self, height: int, width: int) -> int:
        """One for each column."""
        return width + self.num_unseen if height else 0

    def encode_image(self, pixels: np.ndarray) -> np.ndarray:
        """float32 `[width, 3]`."""
        self.num_looks += 1
        self.num_looking += 1
        self.most_looking = max(self.most_looking, self.num_looking)
        self.may_end.wait()
        self.num_looking -= 1
        if self.is_broken:
            raise RuntimeError("an address in memory")
        return np.asarray(pixels.mean(axis=0), np.float32)

    def _note(self, batch: Batch) -> None:
        for place, vectors in batch.embeddings:
            first = int(batch.num_computed_tokens[0]) + place
            self.fed |= {first + i: vector.tolist() for i, vector in enumerate(vectors)}


def picture(colour: str, width: int = 2, height: int = 3, *, cut: int = 0) -> dict[str, Any]:
    """A content part with a picture of one colour, whose file may lack its last bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    data = file.getvalue()
    url = f"data:image/png;base64,{b64encode(data[: len(data) - cut]).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def text(value: str) -> dict[str, Any]:
    """A content part of text."""
    return {"type": "text", "text": value}


def body(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A chat of one message."""
    return {"model": "test-model", "messages": [{"role": "user", "content": [*parts]}], **fields}


@asynccontextmanager
async def seeing(folder: Path, **options: Any) -> AsyncIterator[tuple[Serving, SeeingRunner]]:
    """A server of a model that sees."""
    make_model_dir(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "chat_template": TEMPLATE})
    )
    runner = SeeingRunner()
    pricing = {"prompt": "0.000001", "completion": "0", "image": "0.01"}
    models = ({"id": "test-model", "source": str(folder), "pricing": pricing},)
    async with serving(lambda _: runner, models=models, **options) as served:
        yield served, runner


async def test_vectors_stand_where_the_template_shows_the_image(tmp_path: Path) -> None:
    """Each picture's, in order; tokens and images are counted and billed."""
    async with seeing(tmp_path) as (served, runner):
        response = await served.post(
            PATH, body(text("a"), picture("red"), text("b"), picture("blue", 3))
        )
        answer = await response.json()
        assert answer["choices"][0]["message"]["content"] == "I see."
        red, blue = [255, 0, 0], [0, 0, 255]
        # <|im_start|> a RR b BBB <|im_end|> <|im_start|>
        assert runner.fed == {2: red, 3: red, 5: blue, 6: blue, 7: blue}
        assert answer["usage"]["prompt_tokens"] == 10
        [event] = served.usage.events
        assert (event["image_count"], event["cost"]) == (2, "0.02001")


async def test_v12_prompts_share_a_beginning_only_with_the_same_image(tmp_path: Path) -> None:
    """Their ids are the same; what they show is not."""
    async with seeing(tmp_path) as (served, _):
        cached = []
        for colour in ("red", "red", "blue"):
            response = await served.post(PATH, body(picture(colour, 40), text("What is it?")))
            usage = (await response.json())["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        assert cached[0] == cached[2] == 0
        assert cached[1] >= 40


async def test_chats_without_images_are_as_ever(tmp_path: Path) -> None:
    """A model that sees reads text, too."""
    async with seeing(tmp_path) as (served, runner):
        response = await served.post(PATH, body(text("a"), text("b")))
        assert response.status == 200
        assert (runner.fed, runner.num_looks) == ({}, 0)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,aGVsbG8=", "invalid_image"),
        ("data:text/html;base64,aGVsbG8=", "invalid_image"),
        ("https://127.0.0.1/a.png", "image_fetch_failed"),
        ("https://localhost/a.png", "image_fetch_failed"),
        ("http://169.254.169.254/latest/meta-data", "image_fetch_failed"),
        ("file:///etc/passwd", "image_fetch_failed"),
    ],
)
async def test_what_is_no_image_is_refused_at_its_place(
    tmp_path: Path, url: str, code: str
) -> None:
    """The part is named, and nobody is billed."""
    async with seeing(tmp_path) as (served, _):
        bad = {"type": "image_url", "image_url": {"url": url}}
        response = await served.post(PATH, body(text("a"), picture("red"), bad))
        error = (await response.json())["error"]
        assert response.status == 400
        assert (error["param"], error["code"]) == ("messages[0].content[2]", code)
        assert served.usage.events == []


async def test_v6_too_many_images_are_refused_before_one_is_fetched(tmp_path: Path) -> None:
    """By their number alone."""
    images = {"max_images": 2}
    async with seeing(tmp_path, images=images) as (served, runner):
        bad = {"type": "image_url", "image_url": {"url": "https://127.0.0.1/"}}
        response = await served.post(PATH, body(bad, bad, bad))
        message = (await response.json())["error"]["message"]
        assert (response.status, message) == (400, "messages must have at most 2 images, not 3")
        assert runner.num_looks == 0


async def test_an_image_counts_for_the_length_of_a_prompt(tmp_path: Path) -> None:
    """Its vectors are tokens."""
    async with seeing(tmp_path) as (served, _):
        response = await served.post(PATH, body(picture("red", 3000)))
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (400, "context_length_exceeded")


async def test_a_text_cannot_pretend_to_be_an_image(tmp_path: Path) -> None:
    """The placeholder that a client types is plain text."""
    async with seeing(tmp_path) as (served, runner):
        response = await served.post(PATH, body(text("<|endoftext|>"), picture("red")))
        assert response.status == 200
        assert list(runner.fed) == [14, 15]


async def test_models_that_read_text_refuse_images_at_their_place() -> None:
    """Whatever the address: nothing is fetched."""
    async with serving(saying("Hello!")) as served:
        response = await served.post(PATH, body(text("a"), picture("red")))
        error = (await response.json())["error"]
        assert response.status == 400
        assert (error["param"], error["code"]) == (
            "messages[0].content[1]",
            "unsupported_parameter",
        )


async def test_tokens_are_counted_without_a_look(tmp_path: Path) -> None:
    """From the sizes alone, and as they are billed."""
    image = {"type": "base64", "media_type": "image/png"}
    image["data"] = picture("red", 7)["image_url"]["url"].partition(",")[2]
    content = [{"type": "image", "source": image}]
    chat = {"model": "test-model", "messages": [{"role": "user", "content": content}]}
    async with seeing(tmp_path) as (served, runner):
        response = await served.post("/v1/messages/count_tokens", chat)
        counted = (await response.json())["input_tokens"]
        assert runner.num_looks == 0
        response = await served.post("/v1/messages", {**chat, "max_tokens": 1})
        assert counted == (await response.json())["usage"]["input_tokens"] == 10


class Doorkeeper:
    """Lets nobody in who asks for less than a hundred tokens."""

    @hookimpl
    def admit_request(self, max_tokens: int) -> None:
        """At the second gate."""
        if max_tokens < 100:
            raise RateLimited("no")


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"response_format": SCHEMA_OF_NOTHING}, 400), ({"max_tokens": 1}, 429)],
)
async def test_what_is_refused_was_not_looked_at(
    tmp_path: Path, fields: dict[str, Any], status: int
) -> None:
    """A schema, a limit: whatever can refuse a request comes before a model's work."""
    async with seeing(tmp_path, plugins=(Doorkeeper(),)) as (served, runner):
        response = await served.post(PATH, body(picture("red"), **fields))
        assert (response.status, runner.num_looks) == (status, 0)
        assert served.usage.events == []


async def test_who_leaves_during_a_look_has_an_event_and_keeps_the_turn(tmp_path: Path) -> None:
    """One picture at a time, although nobody can stop a look."""
    async with seeing(tmp_path) as (served, runner):
        runner.may_end.clear()
        first = asyncio.create_task(served.post(PATH, body(picture("red"))))
        await served.wait_until(lambda: runner.num_looks == 1)
        first.cancel()
        await served.wait_until(lambda: bool(served.usage.events))
        second = asyncio.create_task(served.post(PATH, body(picture("blue"))))
        await served.wait_until(lambda: bool(served.server.dispatcher.runs))
        model = served.server.models.find_ready("test-model")
        assert (model.num_looking, model.num_open) == (1, 2)
        runner.may_end.set()
        assert (await second).status == 200
        assert (runner.num_looks, runner.most_looking) == (2, 1)
        assert (model.num_looking, model.num_open) == (0, 0)
        gone, served_ = served.usage.events
        assert (gone["status"], gone["billable"], gone["cost"]) == ("cancelled", False, "0")
        assert served_["status"] == "ok"


async def test_looks_count_for_the_queue(tmp_path: Path) -> None:
    """They come to the engine next: what is more than it takes is refused."""
    async with seeing(tmp_path, limits={"queue_factor": 0}) as (served, runner):
        model = served.server.models.find_ready("test-model")
        num_slots = model.engine.load().num_slots
        assert num_slots <= 8
        runner.may_end.clear()
        first = asyncio.create_task(served.post(PATH, body(picture("red"), n=num_slots)))
        await served.wait_until(lambda: runner.num_looks == 1)
        refused = await served.post(PATH, body(text("hi")))
        runner.may_end.set()
        assert (refused.status, (await first).status) == (429, 200)


async def test_a_burst_of_looks_fills_the_queue_and_no_more(tmp_path: Path) -> None:
    """Whoever is let in counts at once."""
    async with seeing(tmp_path, limits={"queue_factor": 0}) as (served, runner):
        num_slots = served.server.models.find_ready("test-model").engine.load().num_slots
        runs = served.server.dispatcher.runs
        runner.may_end.clear()
        asked = [
            asyncio.create_task(served.post(PATH, body(picture("red"))))
            for _ in range(num_slots + 4)
        ]
        await served.wait_until(
            lambda: len(runs) + sum(task.done() for task in asked) == len(asked)
        )
        runner.may_end.set()
        statuses = [reply.status for reply in await asyncio.gather(*asked)]
        assert (statuses.count(200), statuses.count(429)) == (num_slots, 4)


@pytest.mark.parametrize(("num_unseen", "end"), [(0, b"[DONE]"), (1, b'"backend_error"')])
async def test_a_stream_does_not_wait_in_silence_for_a_look(
    tmp_path: Path, num_unseen: int, end: bytes
) -> None:
    """Its headers leave in time, and keep-alives; what fails afterwards is its last event."""
    limits = {"sse_keepalive_s": 0.02}
    async with seeing(tmp_path, limits=limits) as (served, runner), asyncio.timeout(20):
        runner.num_unseen = num_unseen
        runner.may_end.clear()
        asked = body(picture("red"), stream=True)
        async with served.session.post(served.url + PATH, json=asked) as reply:
            assert reply.status == 200
            await reply.content.readuntil(b"\n\n: ")  # the opening, then a comment
            assert runner.num_looking == 1
            runner.may_end.set()
            said = await reply.content.read()
        await served.settled()
        assert end in said
        [event] = served.usage.events
        assert event["status"] == ("error" if num_unseen else "ok")
    assert runner.num_looking == 0


async def test_a_request_that_is_cut_during_a_look_does_not_run(tmp_path: Path) -> None:
    """As a drain does it: the engine never sees it."""
    async with seeing(tmp_path) as (served, runner):
        runner.may_end.clear()
        asked = asyncio.create_task(served.post(PATH, body(picture("red"))))
        await served.wait_until(lambda: runner.num_looks == 1)
        [run] = served.server.dispatcher.runs
        run.cut(Unavailable("the server is shutting down", code="draining"))
        runner.may_end.set()
        assert (await asked).status == 503
        assert runner.fed == {}
        [event] = served.usage.events
        assert (event["billing_rule"], event["error_code"]) == ("R7", "draining")


async def test_a_look_that_takes_too_long_ends_at_the_deadline(tmp_path: Path) -> None:
    """Nobody waits longer; the thread has its turn to its end."""
    async with seeing(tmp_path) as (served, runner):
        runner.may_end.clear()
        model = served.server.models.find_ready("test-model")
        pixels = np.zeros((3, 2, 3), np.uint8)
        images = PromptImages(pictures=deque([DecodedImage(pixels)] * 3), spans=[(0, 2)])
        looker = served.server.dispatcher.looker
        with pytest.raises(DeadlineExceeded):
            await looker.look(model, images, deadline_s=monotonic())
        with pytest.raises(DeadlineExceeded):
            await looker.look(model, images, deadline_s=monotonic() + 0.01)
        runner.may_end.set()
        seen = await looker.look(model, images, deadline_s=monotonic() + 50)
        assert [place for place, _ in seen] == [0]
        assert (runner.most_looking, model.num_looking, model.num_open) == (1, 0, 0)
        assert len(images.pictures) == 1  # of whoever got no turn


async def test_a_model_that_sees_something_else_than_it_said_is_at_fault(tmp_path: Path) -> None:
    """Its prompt would be another than was counted."""
    async with seeing(tmp_path) as (served, runner):
        runner.num_unseen = 1
        response = await served.post(PATH, body(picture("red")))
        assert (response.status, runner.fed) == (502, {})


async def test_a_look_that_fails_is_the_models_fault(tmp_path: Path) -> None:
    """Its client learns no more, and the next one is served."""
    async with seeing(tmp_path) as (served, runner):
        runner.is_broken = True
        response = await served.post(PATH, body(picture("red")))
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (502, "backend_error")
        assert "address" not in error["message"]
        assert [event["status"] for event in served.usage.events] == ["error"]
        runner.is_broken = False
        assert (await served.post(PATH, body(picture("red")))).status == 200
