"""Who may export: the same list of callers and the same certificates, over gRPC and over HTTP."""

import http.client
import ssl
from typing import Any

import grpc
import pytest

from demo.processes import ServiceEnded
from service_kit.access.roles import Role, make_token
from tests.intake_svc.conftest import open_house, wait_for
from tests.intake_svc.exports import EXPORT, PROTOBUF, calls, post, send
from tests.support.certificates import Authority

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A door with certificates and a list of callers, a ledger, and the tokens of a producer and of an admin."""
    folder = tmp_path_factory.mktemp("guarded")
    producer, entry = make_token("claude-of-ada", [Role.PRODUCER])
    admin, other = make_token("ops", [Role.ADMIN])
    (folder / "callers").write_text(entry + other)
    authority = Authority(folder)
    own = authority.server()
    with open_house(folder) as house:
        house.start_audit()
        door = house.start_door(
            INTAKE_TOKENS_FILE=str(folder / "callers"),
            INTAKE_TLS_CERT=str(own.certificate),
            INTAKE_TLS_KEY=str(own.key),
        )
        yield house, door, authority, producer, admin


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def by_grpc(door, authority, token: str, batch) -> str:
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(door.grpc, credentials, options) as channel:
        call: Any = channel.unary_unary(EXPORT)
        try:
            call(
                batch.SerializeToString(), metadata=[("authorization", f"Bearer {token}")] if token else [], timeout=60
            )
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def by_https(door, authority, token: str, batch) -> int:
    context = ssl.create_default_context(cafile=str(authority.path))
    port = int(door.http.rpartition(":")[2])
    connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
    headers = {"Content-Type": PROTOBUF, **dict(bearer(token))}
    try:
        connection.request("POST", "/v1/traces", batch.SerializeToString(), headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_call_is_let_in_by_its_token_and_its_rows_name_the_caller(guarded):
    house, door, authority, producer, admin = guarded
    batch = calls(2, session="guarded")
    for token, code, status in [
        ("", "UNAUTHENTICATED", 401),
        ("guessed", "UNAUTHENTICATED", 401),
        (admin, "PERMISSION_DENIED", 403),
        (producer, "OK", 200),
    ]:
        assert by_grpc(door, authority, token, batch) == code
        assert by_https(door, authority, token, batch) == status
    rows = wait_for(lambda: found if len(found := house.rows()) >= 2 else None)
    assert [row["principal"] for row in rows] == ["claude-of-ada"] * 2


def test_a_certificate_that_was_replaced_is_shown_without_a_restart(guarded):
    _, door, authority, producer, _ = guarded

    def serial() -> str:
        context = ssl.create_default_context(cafile=str(authority.path))
        connection = http.client.HTTPSConnection("localhost", int(door.http.split(":")[1]), timeout=60, context=context)
        connection.connect()
        try:
            return str(connection.sock.getpeercert()["serialNumber"])  # type: ignore[index]
        finally:
            connection.close()

    before = serial()
    authority.server()
    wait_for(lambda: serial() != before)
    assert by_https(door, authority, producer, calls()) == 200
    assert by_grpc(door, authority, producer, calls()) == "OK"


def test_without_tls_no_address_of_other_machines_is_taken(house):
    for name in ("INTAKE_LISTEN", "INTAKE_HTTP_LISTEN"):
        with pytest.raises(ServiceEnded, match=f"exit code 2\n{name}: 0.0.0.0:0 can be reached from other machines"):
            house.start_door(**{name: "0.0.0.0:0"})


def test_a_caller_that_sends_too_often_or_too_much_is_told_to_come_again(house):
    house.start_audit()
    door = house.start_door(INTAKE_RATE_PER_SECOND="1", INTAKE_MAX_WAITING_BYTES=str(2**20), INTAKE_MAX_CALLS="50")
    codes = [post(door.http, "/v1/traces", b"")[0] for _ in range(3)]
    assert 429 in codes
    wait_for(lambda: post(door.http, "/v1/traces", bytes(2 * 2**20))[0] == 503)
    with pytest.raises(grpc.RpcError) as refused:
        send_three(door)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def send_three(door) -> None:
    for _ in range(3):
        send(door.grpc, calls())
