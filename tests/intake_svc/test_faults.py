"""What the door answered is on the record, whatever is killed, full or away."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service_kit.probe import probe
from tests.intake_svc.conftest import House, wait_for
from tests.intake_svc.exports import calls, post, send
from tests.support.ports import own_port
from tests.support.small_disk import hog, mounted_at

pytestmark = pytest.mark.long

PATIENT = {"INTAKE_ANSWER_AFTER": "ledger", "INTAKE_ANSWER_SECONDS": "60"}


def call_ids(export: ExportTraceServiceRequest) -> list[str]:
    return [
        attribute.value.string_value
        for span in export.resource_spans[0].scope_spans[0].spans
        for attribute in span.attributes
        if attribute.key == "gen_ai.tool.call.id"
    ]


def has_grown(answered: list[str], count: int) -> bool:
    return len(answered) >= count


def stored(house: House) -> list[str]:
    return sorted(row["provider_call_id"] for row in house.rows())


@pytest.mark.long(nightly=True)
def test_a_door_that_is_killed_loses_nothing_that_it_answered_and_stores_nothing_twice(house):
    """Exporters send what was not answered again, as the SDKs do, while the door is killed five times."""
    house.start_audit()
    with own_port() as port, own_port() as http_port:
        listen = {"INTAKE_LISTEN": f"127.0.0.1:{port}", "INTAKE_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
        door = house.start_door(**listen)
        answered: list[str] = []
        ends = threading.Event()

        def export(number: int) -> None:
            while not ends.is_set():
                batch = calls(5, session=f"exporter-{number}")
                while True:
                    with suppress(grpc.RpcError, OSError):
                        if number % 2:
                            send(f"127.0.0.1:{port}", batch)
                            break
                        if post(f"127.0.0.1:{http_port}", "/v1/traces", batch.SerializeToString())[0] == 200:
                            break
                    if ends.wait(0.02):
                        return
                answered.extend(call_ids(batch))

        with ThreadPoolExecutor(4) as pool:
            exporters = [pool.submit(export, number) for number in range(4)]
            for _ in range(5):
                wait_for(partial(has_grown, answered, len(answered) + 100))
                door.service.kill()
                door = house.start_door(**listen)
            ends.set()
            for one in exporters:
                one.result()
        wait_for(lambda: set(answered) <= set(stored(house)))
    found = stored(house)
    assert len(found) == len(set(found))


@pytest.mark.long(nightly=True)
def test_a_ledger_that_is_killed_and_comes_back_has_each_row_once(house):
    ledger = house.start_audit()
    door = house.start_door()
    sent: list[str] = []
    for _ in range(3):
        for _ in range(5):
            batch = calls(20)
            send(door.grpc, batch)
            sent += call_ids(batch)
        ledger.kill()
        batch = calls(20)
        send(door.grpc, batch)  # answered while there is no ledger: it is on the door's disk
        sent += call_ids(batch)
        ledger = house.start_audit()
    wait_for(lambda: stored(house) == sorted(sent))


def test_an_answer_that_waits_for_the_ledger_comes_when_it_has_the_rows_and_never_before(house):
    house.start_audit()
    door = house.start_door(**PATIENT)
    batch = calls(3)
    send(door.grpc, batch)
    assert stored(house) == sorted(call_ids(batch))


def test_an_answer_that_waits_for_a_ledger_that_is_away_is_a_passing_refusal(house):
    door = house.start_door(INTAKE_ANSWER_AFTER="ledger", INTAKE_ANSWER_SECONDS="0.2")
    with pytest.raises(grpc.RpcError) as refused:
        send(door.grpc, calls())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_door_whose_answers_wait_for_a_ledger_that_is_away_is_not_healthy(house):
    door = house.start_door(INTAKE_ANSWER_AFTER="ledger", INTAKE_ANSWER_SECONDS="0.2")
    with pytest.raises(grpc.RpcError):
        send(door.grpc, calls())
    told = wait_for(lambda: said if "NOT_SERVING" in (said := probe(door.grpc, 10)[1]) else None)
    assert "the ledger does not answer" in told
    house.start_audit()
    wait_for(lambda: probe(door.grpc, 10)[0])


def test_a_door_whose_disk_is_full_answers_nothing_and_takes_it_when_there_is_room(house):
    house.start_audit()
    with mounted_at(house.state) as disk:
        door = house.start_door()
        filling = hog(disk)
        batch = calls(50)

        def is_refused() -> bool:
            code, headers, _ = post(door.http, "/v1/traces", batch.SerializeToString())
            return code == 503 and int(headers["retry-after"]) > 0

        wait_for(is_refused)  # a spool has some room ahead
        with pytest.raises(grpc.RpcError) as refused:
            send(door.grpc, batch)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        filling.unlink()
        wait_for(lambda: post(door.http, "/v1/traces", batch.SerializeToString())[0] == 200)
        wait_for(lambda: set(call_ids(batch)) <= set(stored(house)))
        assert not [row for row in house.rows() if row["tool_name"] == "onrecord.gap"], "nothing was lost"
        assert len(stored(house)) == len(set(stored(house)))
        door.service.terminate()


def test_sixty_four_exporters_at_once_are_answered_and_their_rows_stored(house):
    house.start_audit()
    door = house.start_door()
    batches = [calls(64, session=f"exporter-{number}") for number in range(64)]

    def export(number: int) -> None:
        for _ in range(2):  # each twice
            if number % 2:
                send(door.grpc, batches[number])
            else:
                assert post(door.http, "/v1/traces", batches[number].SerializeToString())[0] == 200

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(export, range(64)))
    expected = sorted(call for batch in batches for call in call_ids(batch))
    wait_for(lambda: stored(house) == expected)


def test_a_door_that_ends_answers_what_it_has_and_refuses_the_rest_as_passing(house):
    house.start_audit()
    door = house.start_door()
    batches = [calls(200, session=f"exporter-{number}") for number in range(8)]
    answered: list[str] = []
    refused: list[grpc.StatusCode] = []

    def export(batch) -> None:
        try:
            send(door.grpc, batch)
            answered.extend(call_ids(batch))
        except grpc.RpcError as error:
            refused.append(error.code())

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(export, batch) for batch in batches]
        assert door.service.terminate() == 0
        for one in running:
            one.result()
    # gRPC itself cancels what came too late for it. Exporters send both again:
    # https://opentelemetry.io/docs/specs/otlp/#failures
    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    wait_for(lambda: set(answered) <= set(stored(house)))
