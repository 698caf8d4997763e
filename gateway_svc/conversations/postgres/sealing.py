"""Encryption of the calls that gateways pass on, by the keys of their sessions; without a key they go in clear.

Each call has a key of its own. Its request is bound to the call, to who asks whom, and for whom; an answer to the call
and to the gateway that gives it. A gateway that encrypts takes no request in clear: whoever can write to the database
would be any caller.

An answer is one payload, and encrypted by the key of its request, which who asks has. A gateway that lacks that key
says so by a status in clear, of which no word is believed.
"""

from typing import NamedTuple

from gateway_svc.conversations.encryption import (
    SETTING,
    Keys,
    NotGenuine,
    Sealing,
    UnknownKey,
    is_encrypted,
    key_of,
    sized,
)
from gateway_svc.errors import Damaged, GatewayError, KeyMissing

_SAME = f"all gateways that share sessions need the same {SETTING}"
_REQUEST, _ANSWER = b"\1", b"\2"
_NOTHING, _RESPONSE, _STATUS = b"\0", b"\1", b"\2"


class Passed(NamedTuple):
    """A request as it is passed on."""

    asked_by: int
    target: int | None
    method: str
    request: bytes
    caller: str

    def bound_to(self) -> bytes:
        """What the request is bound to."""
        gateways = f"{self.asked_by} {'' if self.target is None else self.target}"
        return _REQUEST + b"".join(sized(text.encode()) for text in (gateways, self.method, self.caller))


class CallCipher:
    """Encrypts and decrypts what one call passes on."""

    def __init__(self, keys: Keys, call_id: int, key_id: str | None) -> None:
        """key_id: of the key that encrypts; None where all is in clear."""
        self._keys = keys
        self._id = call_id.to_bytes(8, "big")
        self._key_id = key_id
        self._sealing = Sealing(keys, b"gateway call " + self._id)

    @classmethod
    def answering(cls, keys: Keys, call_id: int, stored: bytes) -> "CallCipher":
        """That of a request that another gateway passes on: in clear where it is, or where its key is not here."""
        key_id = key_of(stored) if is_encrypted(stored) else None
        return cls(keys, call_id, key_id if key_id is not None and key_id in keys else None)

    def seal_request(self, call: Passed) -> bytes:
        """The request as it is passed on."""
        if self._key_id is None:
            return call.request
        return self._sealing.seal(self._key_id, self._id + call.bound_to(), call.request)

    def open_request(self, call: Passed) -> bytes:
        """The request of another gateway.

        Raises:
            KeyMissing: its key is not here, or it has none.
            Damaged: it is not what that gateway passed on.
        """
        asked_by = str(call.asked_by)
        if not is_encrypted(call.request):
            if self._keys.first is None:
                return call.request
            raise KeyMissing(f"gateway {asked_by} passes calls on in clear: {_SAME}", "gateway", asked_by)
        try:
            return self._sealing.open(self._id + call.bound_to(), call.request)
        except UnknownKey as error:
            told = f"a call of gateway {asked_by} is encrypted by the key {error.key_id}, which is not here: {_SAME}"
            raise KeyMissing(told, "gateway", asked_by) from None
        except NotGenuine as error:
            raise Damaged(f"a call of gateway {asked_by} {error}", "gateway", asked_by) from None

    def seal_answer(
        self, gateway: int, response: bytes | None, status: bytes | None
    ) -> tuple[bytes | None, bytes | None]:
        """The answer and the status of a gateway as they are passed on."""
        if self._key_id is None:
            return response, status
        payload = _NOTHING if response is None else _RESPONSE + response
        if status is not None:
            payload = _STATUS + status
        return self._sealing.seal(self._key_id, self._answer_of(gateway), payload), None

    def open_answer(
        self, gateway: int, answer: bytes | None, status: bytes | None
    ) -> tuple[bytes | None, bytes | None, GatewayError | None]:
        """The response and the status that a gateway gave, or why they cannot be had."""
        if self._key_id is None:
            return answer, status, None
        if answer is None:
            told = f"gateway {gateway} cannot read calls that the key {self._key_id} encrypts: {_SAME}"
            return None, None, KeyMissing(told, "gateway", str(gateway))
        try:
            payload = self._sealing.open(self._answer_of(gateway), answer)
        except (NotGenuine, UnknownKey) as error:
            told = f"the answer of gateway {gateway} of those that share sessions is not its own: it {error}"
            return None, None, Damaged(told, "gateway", str(gateway))
        kind, rest = payload[:1], payload[1:]
        return rest if kind == _RESPONSE else None, rest if kind == _STATUS else None, None

    def _answer_of(self, gateway: int) -> bytes:
        return self._id + _ANSWER + gateway.to_bytes(8, "big")
