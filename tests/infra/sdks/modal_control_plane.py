"""Modal's control plane, as far as a deployment needs it: it notes what it is asked for."""

import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from grpclib.const import Handler
from grpclib.server import Server, Stream
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

# What objects' names begin with, which the client checks.
_PREFIXES = {
    "app": "ap",
    "class": "cs",
    "environment": "en",
    "function": "fu",
    "image": "im",
    "mount": "mo",
    "secret": "st",
    "volume": "vo",
}


class _Nobody:
    """Answers nothing: its methods are replaced."""

    def __getattr__(self, name: str) -> None:
        return None


@dataclass
class ControlPlane:
    """Grants everything at once, images too.

    Attributes:
        requests: What came, in order.
    """

    requests: list[Message] = field(default_factory=list)
    _numbers: Counter[str] = field(default_factory=Counter)

    def __mapping__(self) -> Mapping[str, Handler]:
        """Every method, by path."""
        methods: Mapping[str, Handler] = ModalClientBase.__mapping__(_Nobody())
        return {path: each._replace(func=self._answering(each)) for path, each in methods.items()}

    async def start(self) -> int:
        """Listen on a port of loopback.

        Returns:
            The port.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        await Server([self]).start(sock=listener)
        return int(listener.getsockname()[1])

    def asked(self, kind: type[Message]) -> list[Any]:
        """The requests of one kind."""
        return [each for each in self.requests if isinstance(each, kind)]

    def _answering(self, method: Handler) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def answer(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            self.requests.append(request)
            reply = method.reply_type()
            self._name_objects(reply)
            match reply:
                case api_pb2.ImageJoinStreamingResponse():
                    reply.result.status = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
                case api_pb2.MountPutFileResponse():
                    reply.exists = True
                case api_pb2.EnvironmentGetOrCreateResponse():
                    reply.metadata.settings.image_builder_version = "2025.06"
                case api_pb2.FunctionCreateResponse():
                    reply.function_id = request.existing_function_id
                    reply.handle_metadata.function_name = request.function.function_name
                    reply.function_data.ranked_functions.add().function.CopyFrom(request.function)
            await stream.send_message(reply)

        return answer

    def _name_objects(self, reply: Message) -> None:
        for each in reply.DESCRIPTOR.fields:
            kind = each.name.removesuffix("_id")
            if kind != each.name and kind in _PREFIXES:
                self._numbers[kind] += 1
                setattr(reply, each.name, f"{_PREFIXES[kind]}-{self._numbers[kind]}")
            elif each.name == "handle_metadata":
                reply.handle_metadata.SetInParent()
