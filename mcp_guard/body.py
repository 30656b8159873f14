"""The body of a request, between the server that receives it and the layer and the app that read it.

It knows nothing of the exchange that it is part of: a request that was served is freed at once, its body included, and
does not wait for the cycle collector.
"""

from dataclasses import dataclass

from mcp_guard.asgi import Message, Receive
from mcp_guard.layer import BodyTooLarge, ClientDisconnected


@dataclass(eq=False, slots=True)
class Body:
    """The body of a request: read once by whoever asks first, and then replayed to the app."""

    outer_receive: Receive
    content: bytes | None = None
    replayed: bool = False
    gone: bool = False

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body, at most `limit_bytes`."""
        if self.content is None:
            parts: list[bytes] = []
            size = 0
            more = True
            while more:
                message = await self.outer_receive()
                if message["type"] != "http.request":
                    raise ClientDisconnected
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit_bytes:
                    raise BodyTooLarge
                more = message.get("more_body", False)
            self.content = b"".join(parts)
        if len(self.content) > limit_bytes:
            raise BodyTooLarge
        return self.content

    async def receive(self) -> Message:
        """The app's `receive`: the body that was read, once, and after it whatever the server has to say."""
        if self.content is not None and not self.replayed:
            self.replayed = True
            return {"type": "http.request", "body": self.content, "more_body": False}
        message = await self.outer_receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        return message
