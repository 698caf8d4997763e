"""The limits of one client: message size, concurrency, connection age, rate."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import Field

from recording.channel.options import Options
from service_kit.access.callers import current_caller
from service_kit.errors import RateExceeded
from service_kit.handlers import HEALTH, CallDetails, Context, Handler, HandlerInterceptor, rebuild, within
from service_kit.setting_types import Bytes, Count, PerSecond, SecondsOrZero
from service_kit.settings import Settings

_MAX_BUCKETS = 10_000
_NEVER_MS = 2**31 - 1


class LimitSettings(Settings):
    """The limits that both services have, under prefixes of their own."""

    max_message_bytes: Bytes = Field(4 * 2**20, ge=2**20, le=2**30, description="one request, unpacked")
    max_concurrent_streams: Count = Field(1000, description="calls at once on one connection")
    max_connection_age_seconds: SecondsOrZero = Field(0, description="then a client connects anew; 0: never")
    max_connection_age_grace_seconds: SecondsOrZero = Field(60, description="for calls that run at that age")
    max_calls: Count = Field(5000, description="calls at once of all clients")
    rate_per_second: PerSecond = Field(0, description="calls that one caller may begin; 0: any number")

    def server_options(self) -> Options:
        """The limits that gRPC itself keeps."""
        options = [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_concurrent_streams", self.max_concurrent_streams),
        ]
        if self.max_connection_age_seconds:
            options += [
                ("grpc.max_connection_age_ms", _milliseconds(self.max_connection_age_seconds)),
                ("grpc.max_connection_age_grace_ms", _milliseconds(self.max_connection_age_grace_seconds)),
            ]
        return options


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateInterceptor(HandlerInterceptor):
    """Refuses the calls that a caller begins beyond its rate. Health is for everybody at any rate.

    A caller is who its token or certificate says, else the address that it calls from. It may begin one second's calls
    at once.
    """

    def __init__(
        self,
        rate_per_second: float,
        now: Callable[[], float] = time.monotonic,
        take_token: Callable[[str, float, float], float] | None = None,
    ) -> None:
        """take_token: takes a token of a caller's bucket, by rate and burst, where other processes take of it too, and
        returns how many there were; below 1 none was taken.
        """
        self._rate = rate_per_second
        self._burst = max(1.0, rate_per_second)
        self._now = now
        self._take_token = take_token or self._take_own
        self._buckets: dict[str, _Bucket] = {}

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Puts the check in front of the handler."""
        if details.method.startswith(HEALTH):
            return handler
        return rebuild(handler, lambda behaviour: within(behaviour, self._taking))

    @contextmanager
    def _taking(self, context: Context) -> Iterator[None]:
        self.take(_who(context))
        yield

    def take(self, who: str) -> None:
        """Counts one call of who.

        Raises:
            RateExceeded: it has begun too many.
        """
        if (level := self._take_token(who, self._rate, self._burst)) < 1:
            raise RateExceeded(f"more than {self._rate:g} calls a second", (1 - level) / self._rate)

    def _take_own(self, who: str, rate: float, burst: float) -> float:
        now = self._now()
        if who not in self._buckets and len(self._buckets) >= _MAX_BUCKETS:
            self._forget_full(now)
        bucket = self._buckets.setdefault(who, _Bucket(burst, now))
        level = min(burst, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.tokens, bucket.filled_at = level - (level >= 1), now
        return level

    def _forget_full(self, now: float) -> None:
        """Drops the callers whose buckets have filled up: they are as good as new ones."""
        full = [
            who
            for who, bucket in self._buckets.items()
            if bucket.tokens + (now - bucket.filled_at) * self._rate >= self._burst
        ]
        for who in full:
            del self._buckets[who]


def _who(context: Context) -> str:
    if caller := current_caller():
        return caller.name
    return context.peer().rpartition(":")[0]


def _milliseconds(seconds: float) -> int:
    return min(round(seconds * 1000), _NEVER_MS)
