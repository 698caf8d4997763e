"""Time-stamps of the log by an authority, which is OpenSSL's own behind real HTTP, and may be away, slow or lying."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_svc.errors import AuditError
from audit_svc.seal.outside import holders, http_authority
from audit_svc.seal.outside.holders import TIMESTAMP, Holders
from audit_svc.seal.outside.http_authority import Authority, ask, is_due
from audit_svc.seal.outside.posting import NotAnswered
from audit_svc.seal.outside.quorum import roots_of
from audit_svc.seal.outside.set_order import sorted_certificates
from audit_svc.seal.outside.stamps import BadStamp, Stamped, Stamps, check, read_authorities, request_for
from audit_svc.seal.reader import SealReader
from audit_svc.seal.tiles import Tiles
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Seal
from tests.audit_svc.seal.scripted_authority import Certificates, ScriptedAuthority
from tests.audit_svc.seal.test_outside import until
from tests.support.examples import examples

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs OpenSSL's command")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates") / "good")


class World:
    """A log that a test lets grow, and who stamps it."""

    def __init__(self, seal: Seal, record: Callable[..., None], authority: ScriptedAuthority) -> None:
        self.seal, self.server, self._record = seal, authority, record
        self.grow(3)
        self.reader = SealReader(seal.place.open_ledger, seal.place.open_log())

    def grow(self, rows: int) -> int:
        self._record(tool_calls=[audit_row() for _ in range(rows)])
        return self.seal.run()

    @property
    def authority(self) -> Authority:
        return Authority(self.server.url, self.server.certificates.ca, 3600)

    async def ask(self) -> int:
        async with httpx2.AsyncClient() as client:
            return await ask(client, self.authority, self.reader)

    def kept(self) -> list[Path]:
        return sorted((self.seal.folder / "timestamps").glob("*/*"))

    def look(self, ca: Path | None = None) -> Stamped:
        log = self.seal.place.open_log()
        size = self.reader.head().checkpoint.size
        return Stamps(log).look(read_authorities(ca or self.server.certificates.ca), roots_of(Tiles(log, size)))


@pytest.fixture
def world(seal: Seal, record: Callable[..., None], tmp_path: Path, certificates: Certificates) -> Iterator[World]:
    authority = ScriptedAuthority(tmp_path / "authority", certificates)
    authority.start()
    made = World(seal, record, authority)
    yield made
    made.reader.close()
    authority.stop()


@pytest.mark.long
async def test_stamps_are_kept_and_prove_when_the_log_had_how_many_leaves(world):
    before = datetime.now(UTC).replace(microsecond=0)
    sizes = [world.grow(rows) for rows in (1, 300) if await world.ask()] + [await world.ask()]
    found = world.look()
    assert found.problems == []
    assert [stamp.leaves for stamp in found.stamps] == [3, *sizes[:1], sizes[-1]]
    assert {stamp.authority for stamp in found.stamps} == {"Test Time-Stamps"}
    assert all(before <= stamp.at <= datetime.now(UTC) for stamp in found.stamps)


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, check=False)


async def test_a_stamp_is_checked_by_openssl_without_our_program(world):
    await world.ask()
    note, answer = world.kept()
    command = ["openssl", "ts", "-verify", "-data", note, "-in", answer, "-CAfile", world.server.certificates.ca]
    assert b"Verification: OK" in run(*command).stdout
    note.write_bytes(note.read_bytes().replace(b"\n3\n", b"\n4\n"))
    assert run(*command).returncode == 1


def _from_end(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


async def test_an_answer_to_another_question_is_not_kept(world):
    note = (world.seal.folder / "checkpoint").read_bytes()
    imprint, other = hashlib.sha256(note).digest(), hashlib.sha256(b"other").digest()
    for change, why in (
        (lambda query: query.replace(imprint, other), "Mismatch between messages"),
        (lambda query: _from_end(query, -4), "Nonce mismatch"),  # the last byte of the nonce
    ):
        world.server.change_query = change
        with pytest.raises(BadStamp, match=why):
            await world.ask()
    assert world.kept() == []


async def test_an_answer_that_nobody_known_signed_is_not_kept(world, tmp_path):
    world.server.change_answer = lambda answer: _from_end(answer, -1)
    with pytest.raises(BadStamp, match="not a time-stamp that holds"):
        await world.ask()
    world.server.change_answer = bytes
    good = world.server.certificates
    for name, days, why in (("another", 30, "certificate signature failure"), ("expired", -1, "has expired")):
        world.server.certificates = Certificates(tmp_path / name, days)
        if name == "another":
            world.server.certificates.ca = good.ca
        with pytest.raises(BadStamp, match=why):
            await world.ask()
    assert world.kept() == []


async def test_a_time_that_is_far_from_that_of_this_machine_is_not_kept(world, monkeypatch):
    monkeypatch.setattr(http_authority, "MOST_APART", timedelta(-1))
    with pytest.raises(BadStamp, match=r"it says that it is 20.*, and here it is 20"):
        await world.ask()
    assert world.kept() == []


@pytest.mark.long
async def test_an_authority_that_grants_nothing_or_answers_something_else_is_told(world):
    world.server.digests = "sha512"
    with pytest.raises(BadStamp, match="grants no time-stamp"):
        await world.ask()
    world.server.digests = "sha256"
    world.server.media_type = "text/html"
    with pytest.raises(NotAnswered, match="answers with text/html"):
        await world.ask()
    world.server.status = 503
    with pytest.raises(NotAnswered, match="HTTP status 503"):
        await world.ask()
    world.server.change_answer = lambda _: bytes(10_000_000)
    with pytest.raises(NotAnswered, match="more than 65536 bytes"):
        await world.ask()
    world.server.stop()
    with pytest.raises(NotAnswered, match="cannot be reached"):
        await world.ask()
    assert world.kept() == []


def test_certificates_in_any_order_are_taken(good):
    """OpenSSL gives them as they come, and some authorities too; DER sorts a set, and the library wants that."""
    note, answer, files = good
    certificates = [x509.load_pem_x509_certificate(path.read_bytes()) for path in (files.signer, files.chain)]
    encoded = [each.public_bytes(Encoding.DER) for each in certificates]
    orders = [b"".join(encoded), b"".join(encoded[::-1])]
    (found,) = [order for order in orders if order in answer]
    for order in orders:
        changed = answer.replace(found, order)
        assert check(changed, note, read_authorities(files.ca)).leaves == 3
        assert sorted_certificates(changed) == answer.replace(found, b"".join(sorted(encoded)))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> tuple[bytes, bytes, Certificates]:
    note = b"ledger.example.com/test\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\xe2\x80\x94 a AAAAAAA=\n"
    authority = ScriptedAuthority(tmp_path_factory.mktemp("authority"), certificates)
    return note, authority.stamp(request_for(note).as_bytes()), certificates


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
@given(st.data())
def test_no_changed_answer_ends_the_process_or_says_another_time(good, data):
    note, answer, files = good
    whole = check(answer, note, read_authorities(files.ca))
    place = data.draw(st.integers(0, len(answer) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "double", "noise"]))
    changed = {
        "flip": answer[:place] + bytes([answer[place] ^ data.draw(st.integers(1, 255))]) + answer[place + 1 :],
        "cut": answer[:place],
        "double": answer[:place] + answer,
        "noise": data.draw(st.binary(max_size=300)),
    }[kind]
    try:
        found = check(changed, note, read_authorities(files.ca))
    except BadStamp:
        return
    assert (found.leaves, found.at) == (whole.leaves, whole.at)  # what is not signed may differ


async def test_what_is_kept_is_checked_again_and_each_stamp_by_itself(world, tmp_path):
    await world.ask()
    world.grow(5)
    await world.ask()
    _, first_answer, second_note, second_answer = world.kept()
    whole = first_answer.read_bytes()
    first_answer.write_bytes(_from_end(whole, -1))
    found = world.look()
    assert [stamp.leaves for stamp in found.stamps] == [8]
    assert len(found.problems) == 1
    assert "cannot be used" in found.problems[0]
    first_answer.write_bytes(whole)
    second_note.unlink()
    assert "the checkpoint beside it is missing" in world.look().problems[0]
    second_answer.unlink()
    assert world.look().problems == []
    other = Certificates(tmp_path / "other")
    assert any("no time-stamp by this authority" in problem for problem in world.look(other.ca).problems)


async def test_a_log_that_was_written_anew_does_not_fit_its_stamps(world):
    await world.ask()
    world.grow(5)
    for name in ("tile", "checkpoint", "index.db"):
        path = world.seal.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (note, _) = world.kept()
    assert world.seal.run() == 8
    assert world.look().problems == []  # the same rows give the same log
    text = note.read_bytes()
    world.server.change_query = bytes
    lines = text.split(b"\n")
    lines[2] = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    forged = b"\n".join(lines)
    stamped = world.server.stamp(request_for(forged).as_bytes())
    world.seal.place.open_log().write(
        {f"timestamps/{3:020d}/checkpoint": forged, f"timestamps/{3:020d}/stamp.tsr": stamped}
    )
    assert any("does not begin: it was rolled back or written anew" in problem for problem in world.look().problems)


async def test_one_is_due_each_interval_where_the_log_has_grown_and_over_a_restart(world):
    assert await is_due(world.authority, world.reader)
    await world.ask()
    assert not await is_due(world.authority, world.reader)
    world.grow(1)
    assert not await is_due(world.authority, world.reader)
    soon = Authority(world.server.url, world.server.certificates.ca, 0.001)
    again = SealReader(world.seal.place.open_ledger, world.seal.place.open_log())
    assert await is_due(soon, again)
    world.kept()[-1].write_bytes(b"damaged")
    assert await is_due(world.authority, again)
    again.close()


async def test_a_log_without_leaves_is_not_stamped(seal, record):
    seal.run()
    reader = SealReader(seal.place.open_ledger, seal.place.open_log())
    assert reader.head().checkpoint.size == 0
    assert not await is_due(Authority("http://127.0.0.1:1/", seal.folder, 3600), reader)
    record(tool_calls=[audit_row()])
    seal.run()
    assert await is_due(Authority("http://127.0.0.1:1/", seal.folder, 3600), reader)
    reader.close()


@pytest.mark.long
async def test_an_authority_that_fails_is_told_asked_less_and_less_and_goes_on(world, monkeypatch):
    monkeypatch.setattr(holders, "TIMEOUT_SECONDS", 0.5)
    world.server.delay_seconds = 5
    told = Holders(world.reader, tuple, None, 0.02, Authority(world.server.url, world.server.certificates.ca, 0.3))
    async with told.running():
        await until(lambda: "timestamp: it takes longer" in told.why_troubled())
        world.server.delay_seconds = 0
        world.server.stop()
        await until(lambda: "cannot be reached" in told.why_troubled())
        assert 0.02 <= told._stamp_wait <= 0.3
        found = {family.name: family.samples for family in told.collect()}
        assert [sample.labels["holder"] for sample in found["onrecord_seal_holder_trouble"]] == [TIMESTAMP]
        assert [sample.value for sample in found["onrecord_seal_holder_trouble"]] == [1]
        world.server.start()
        await until(lambda: not told.why_troubled() and world.kept())
        assert told._stamp_wait == 0
    assert world.look().problems == []


async def test_only_the_replica_that_writes_asks(world):
    standby = Authority(world.server.url, world.server.certificates.ca, 0.01, lambda: False)
    told = Holders(world.reader, tuple, None, 0.01, standby)
    async with told.running():
        for _ in range(3):
            await told._stamp()
    assert world.server.asked == 0


async def test_a_missing_ca_is_told_and_nothing_is_kept(world):
    world.server.certificates.ca, ca = Path("/nowhere/ca.pem"), world.server.certificates.ca
    try:
        with pytest.raises(AuditError, match="it must have the authority's CA"):
            await world.ask()
    finally:
        world.server.certificates.ca = ca
    assert world.kept() == []
