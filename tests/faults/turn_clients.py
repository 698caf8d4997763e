"""Clients of turns whose connections are cut: each goes on with its turn until it has been told its end."""

import random
import threading
import time
from collections import Counter

import grpc
from google.rpc import error_details_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

AT_ONCE = 4
LABEL = "request"
PAUSE_SECONDS = 0.02
ENDS = (pb.STOP_REASON_COMPLETED, pb.STOP_REASON_CANCELLED)


class TurnClients:
    """Asks for turns, each with a label of its own in its session, so that the sessions of a request can be counted."""

    def __init__(self, address: str, seed: int) -> None:
        self.address = address
        self.told = Counter[str]()
        """How many turns were told what."""
        self.wrong: list[str] = []
        """Answers that are not documented, and events that came twice or not at all."""
        self.killed = False
        """Whether a gateway has been killed, so that its turns may be gone."""
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(number, random.Random(f"{seed}/{number}")), daemon=True)
            for number in range(AT_ONCE)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Waits until each has been told the end of its turn, and ends them."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int, rng: random.Random) -> None:
        turns = 0
        with grpc.insecure_channel(self.address) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            while not self._over.is_set():
                turns += 1
                name = f"{number}-{turns}"
                request = pb.RunTurnRequest(
                    input="go",
                    new_session=pb.SessionSettings(labels={LABEL: name}),
                    request_id=name if rng.random() < 0.7 else "",
                    keep_on_disconnect=rng.random() < 0.5,
                )
                self.told[_Turn(stub, request, self).follow()] += 1


class _Turn:
    def __init__(
        self, stub: gateway_pb2_grpc.GatewayServiceStub, request: pb.RunTurnRequest, clients: TurnClients
    ) -> None:
        self._stub = stub
        self._request = request
        self._clients = clients
        self._turn_id = ""
        self._sequence = 0
        self._attach = False

    def follow(self) -> str:
        """What the client is told in the end."""
        while True:
            try:
                if end := self._listen():
                    return end
                self._report("a stream that ended with OK and without the turn's end")
            except grpc.RpcError as error:
                if end := self._after(error):
                    return end
            time.sleep(PAUSE_SECONDS)

    def _listen(self) -> str:
        if self._attach:
            rest = pb.AttachTurnRequest(turn_id=self._turn_id, after_sequence=self._sequence)
            call = self._stub.AttachTurn(rest, timeout=60)
        else:
            call = self._stub.RunTurn(self._request, timeout=60)
            self._sequence = 0
        for event in call:
            if event.HasField("turn_accepted"):
                if self._turn_id not in ("", event.turn_accepted.turn_id):
                    self._report(f"two turns: {self._turn_id}, {event.turn_accepted.turn_id}")
                self._turn_id = event.turn_accepted.turn_id
            if event.HasField("turn_finished"):
                return self._end(event)
            if event.sequence:
                if event.sequence != self._sequence + 1:
                    self._report(f"event {event.sequence} after {self._sequence}")
                self._sequence = event.sequence
        return ""

    def _end(self, event: pb.TurnEvent) -> str:
        finished = event.turn_finished
        if finished.stop_reason in ENDS:
            return str(pb.StopReason.Name(finished.stop_reason))
        info = error_details_pb2.ErrorInfo()
        for detail in finished.error.details:
            detail.Unpack(info)
        if info.reason != "INTERRUPTED" or not self._clients.killed:
            self._report(f"an end that nothing explains: {finished}")
        return str(info.reason)

    def _after(self, error: grpc.RpcError) -> str:
        """What the client is told, if it is not to go on."""
        code = error.code()
        if self._attach and code is grpc.StatusCode.NOT_FOUND:
            if not self._clients.killed:
                self._report("a turn that its gateway forgot")
            if not self._request.request_id:
                return "gone with its gateway"
            self._attach = False
        elif code is not grpc.StatusCode.UNAVAILABLE:
            self._report(f"{code}: {error.details()}")
            return "refused"
        elif not self._turn_id and not self._request.request_id:
            return "may not be sent again"
        else:
            self._attach = bool(self._turn_id)
        return ""

    def _report(self, what: str) -> None:
        self._clients.wrong.append(f"{self._request.request_id or 'no request_id'}: {what}")
