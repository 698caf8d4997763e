"""Programs that nobody here wrote accept a log of ours and refuse a changed one, signed again with the right key too.

They stand for whoever has the ledger's key, a checkpoint of before, and no reason to trust us.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from audit_svc.seal.folder import CHECKPOINT
from audit_svc.seal.outside.http_witness import Contradicted, ask
from audit_svc.seal.outside.policy import NamedWitness, read_policy
from audit_svc.seal.reader import SealReader
from audit_svc.sealing.places import FolderPlace
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import cosignatures
from recording.transparency.note import Signer
from tests.verifiers.conftest import IN_THE_LEDGER, TAMPERINGS
from tests.verifiers.programs import ORIGIN, VERIFIERS, Log, aics_tlog, aics_witness, go, serving_witness

REFUSALS = {
    "go": "inconsistent tile|invalid transparency proof|invalid inputs in ProveTree|no such file",
    "aics_tlog": "a rollback|history was rewritten|TileMissingError|TileVerificationError",
    "aics_witness": "already cosigned|consistency proof .* does not verify|TileMissingError",
    "pymerkle": "have another root",
}
"""What each says of logs that do not fit: that it cannot be run is no refusal."""

pytestmark = pytest.mark.verifiers
Verifier = Callable[[Log], str]
by_each = pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda each: each.__name__)


@by_each
def test_what_a_service_sealed_is_accepted(verifier: Verifier, log: Log):
    assert log.known < 65_536 < len(log.leaves)  # tiles of the third level are read
    assert verifier(log) == ""


@by_each
@pytest.mark.parametrize("how", TAMPERINGS)
@pytest.mark.parametrize("change", IN_THE_LEDGER)
def test_a_log_that_was_changed_is_refused(
    verifier: Verifier, change: str, how: str, tampered: Callable[[str, str], Log]
):
    assert re.search(REFUSALS[verifier.__name__], verifier(tampered(change, how)))


def test_what_was_signed_again_is_refused_for_its_past_alone(tampered: Callable[[str, str], Log]):
    """Whoever kept nothing is told nothing: the log is whole, and the key is right."""
    log = tampered("flipped", "signed again")
    assert go(replace(log, kept=log.folder / CHECKPOINT)) == ""
    assert aics_tlog(replace(log, kept=log.folder / CHECKPOINT)) == ""


@pytest.mark.parametrize("verifier", [go, aics_tlog, aics_witness], ids=lambda each: each.__name__)
def test_a_log_that_another_signed_is_refused(verifier: Verifier, log: Log, tmp_path: Path):
    shutil.copytree(log.folder, tmp_path / "seal")
    opened = Checkpoint.parse((log.folder / CHECKPOINT).read_text().partition("\n\n")[0] + "\n")
    (tmp_path / "seal" / CHECKPOINT).write_text(Signer.new(ORIGIN).sign(str(opened)))
    said = verifier(replace(log, folder=tmp_path / "seal"))
    assert re.search("no verifiable signatures|signature|key", said), said


async def test_a_witness_that_others_wrote_cosigns_what_the_service_sends_and_refuses_another_log(
    log: Log, tampered: Callable[[str, str], Log], tmp_path: Path
):
    shutil.copytree(log.folder, tmp_path / "seal")
    changed = tampered("flipped", "signed again")
    with serving_witness(log) as (url, key):
        policy = read_policy(f"witness w1 {key} {url}\n")
        async with httpx2.AsyncClient() as client:
            for _ in range(2):  # the second time it is known how far the witness is
                reader = reader_of(log.database, tmp_path / "seal", policy)
                assert await ask(client, policy[0], reader) == len(log.leaves)
                assert list(cosignatures(reader.head().note, [policy[0].key]))
                reader.close()
            reader = reader_of(changed.database, changed.folder, policy)
            with pytest.raises(Contradicted):
                await ask(client, policy[0], reader)
            reader.close()


def reader_of(database: Path, folder: Path, policy: tuple[NamedWitness, ...]) -> SealReader:
    place = FolderPlace(database, folder)
    return SealReader(place.open_ledger, place.open_log(), lambda: policy)
