"""The gateway put together: which parts a deployment has is decided here, from its settings, once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from gateway_svc.answers import Answers
from gateway_svc.engines import Engine
from gateway_svc.servicer import RETRY_AFTER_SECONDS, STATUSES, GatewayServicer
from gateway_svc.sessions import Sessions
from gateway_svc.settings import GatewaySettings
from gateway_svc.turn import Runner
from gateway_svc.turns import Turns
from service_kit.errors import ErrorInterceptor
from service_kit.server import add_health, build_server, serve
from service_kit.settings import describe_settings

SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name

log = structlog.get_logger(__name__)
