"""Raw HTTP/2 with prior knowledge: the fields of a request as they are written here, whatever RFC 9113 says of them."""

import socket
from dataclasses import dataclass, replace

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from tests.guard.attacks.raw import TIMEOUT_SECONDS, Observation, Request

Fields = tuple[tuple[bytes, bytes], ...]

GONE = Observation(499)
STREAM = 1


@dataclass(frozen=True)
class Http2Request:
    """One request. `fields` are sent in order, pseudo-header fields and repeated ones included."""

    fields: Fields
    body: bytes = b""
    trailers: Fields = ()

    @classmethod
    def like(cls, request: Request) -> "Http2Request":
        """The same request as one of HTTP/1.1: its Host field is said as `:authority`."""
        host = dict(request.headers)[b"Host"]
        pseudo = (
            (b":method", request.method),
            (b":scheme", b"http"),
            (b":authority", host),
            (b":path", request.target),
        )
        rest = tuple((name.lower(), value) for name, value in request.headers if name != b"Host")
        return cls((*pseudo, *rest), request.body)

    def saying(self, name: bytes, value: bytes) -> "Http2Request":
        """The request with another value of a field."""
        return replace(self, fields=tuple((key, value if key == name else old) for key, old in self.fields))

    def without(self, name: bytes) -> "Http2Request":
        return replace(self, fields=tuple(pair for pair in self.fields if pair[0] != name))

    def also(self, *fields: tuple[bytes, bytes]) -> "Http2Request":
        return replace(self, fields=(*self.fields, *fields))


def send(port: int, request: Http2Request) -> Observation:
    """Send the request on a new connection and read its response to the end; 499 when there is none."""
    settings = H2Configuration(
        client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = H2Connection(config=settings)
    client.initiate_connection()
    client.send_headers(STREAM, list(request.fields), end_stream=not request.body and not request.trailers)
    if request.body:
        client.send_data(STREAM, request.body, end_stream=not request.trailers)
    if request.trailers:
        client.send_headers(STREAM, list(request.trailers), end_stream=True)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.sendall(client.data_to_send())
            return answer(client, connection)
        except (OSError, ProtocolError):
            return GONE


def answer(client: H2Connection, connection: socket.socket) -> Observation:
    """The response on the one stream."""
    status, body = 499, b""
    headers: tuple[tuple[str, str], ...] = ()
    while data := connection.recv(65536):
        events: list[Event] = client.receive_data(data)
        for event in events:
            if isinstance(event, ResponseReceived):
                pairs = [(bytes(name).decode(), bytes(value).decode("latin-1")) for name, value in event.headers]
                status, headers = int(dict(pairs)[":status"]), tuple(pairs)
            elif isinstance(event, DataReceived):
                body += event.data
                client.acknowledge_received_data(event.flow_controlled_length, STREAM)
            elif isinstance(event, StreamReset | ConnectionTerminated):
                return GONE
            elif isinstance(event, StreamEnded):
                return Observation(status, headers, body)
        connection.sendall(client.data_to_send())
    return GONE
