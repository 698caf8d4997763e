"""OTLP over gRPC."""

from typing import Any

import grpc
from google.protobuf.message import Message

from intake_svc.door import Door
from intake_svc.signals import SIGNALS, Signal
from intake_svc.unpacking import parse_protobuf
from service_kit.handlers import Context


def add_to_server(door: Door, server: grpc.aio.Server) -> None:
    """Adds the services of all signals to server. Their requests come undecoded: the door unpacks one at a time."""
    make: Any = grpc.unary_unary_rpc_method_handler
    for signal in SIGNALS:
        handler = make(
            _exporting(door, signal), request_deserializer=bytes, response_serializer=signal.response.SerializeToString
        )
        handlers = grpc.method_handlers_generic_handler(signal.service, {"Export": handler})
        server.add_generic_rpc_handlers((handlers,))


def _exporting(door: Door, signal: Signal) -> Any:
    async def export(data: bytes, context: Context) -> Message:
        with door.holding(len(data)):
            return await door.take(signal, lambda: parse_protobuf(signal, data))

    return export
