"""A world whose ledger is sealed, and whose sealer is killed too: in the end all that is stored is sealed as it is."""

import os
import signal
import time
from contextlib import closing, suppress
from pathlib import Path

from audit_svc.seal.errors import InUse
from audit_svc.seal.folder import KEY, VERIFIER, folder_of, read_verifier
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.verify import verify
from audit_svc.sealing.places import FolderPlace, open_sealer
from tests.faults.ledger import Findings
from tests.faults.world import World
from tests.support.processes import children_of

GRACE_SECONDS = 60


class SealedWorld(World):
    """The seal of its audit service goes on at each kill."""

    SEAL_SECONDS = "0.05"

    def kill_audit(self) -> None:
        """SIGKILL to the audit service, and before it to its sealer as often as not."""
        if self.rng.random() < 0.5:
            for child in children_of(self.audit_pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        super().kill_audit()

    def settle(self) -> Findings:
        """As World.settle(), and verifies the seal."""
        findings = super().settle()
        database = self.audit_folder / "audit.db"
        folder = folder_of(database)
        with self._sealer(database, folder) as sealer:
            while sealer.step():
                pass
        place = FolderPlace(database, folder)
        with closing(place.open_ledger()) as ledger, ledger.moment():
            report = verify(ledger, place.open_log(), read_verifier(str(folder / VERIFIER)), [])
        findings.report("corrupt", report.problems)
        if report.unsealed or not report.rows:
            findings.report("lost", [f"rows that are not sealed: {report.unsealed}, {report.rows} are"])
        return findings

    def _sealer(self, database: Path, folder: Path) -> Sealer:
        """Waits for the one of the service that was killed, which does a last round."""
        deadline = time.monotonic() + GRACE_SECONDS
        while True:
            try:
                return open_sealer(FolderPlace(database, folder), folder / KEY, "")
            except InUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
