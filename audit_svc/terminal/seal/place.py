"""Where a seal is, for commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

from audit_svc.seal.errors import SealError
from audit_svc.seal.folder import CHECKPOINT, own_verifier, read_verifier
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import Log
from audit_svc.seal.sealer import Sealer
from audit_svc.sealing.places import FolderPlace, SealPlace, open_sealer, place_of
from audit_svc.terminal.running import may_ask, named_database, say_unseen
from recording.transparency.note import Verifier
from service_kit.terminal.command import Option

Folder = Annotated[Path | None, Option("--seal", help="The seal's folder; FILE.seal beside the database by default.")]
KeyFile = Annotated[Path | None, Option("--key-file", help="The signing key; `key` in the seal's folder by default.")]


class Where(NamedTuple):
    """A ledger, its seal, and the signing key's file."""

    place: SealPlace
    log: Log
    own_key_file: Path | None

    def refuse_unsealed(self, hint: str = "name its folder with --seal") -> None:
        """Raises SealError where there is no folder of a seal. hint: what to do."""
        if isinstance(self.place, FolderPlace) and not self.place.folder.is_dir():
            raise SealError(f"there is no seal at {self.place.folder}: {hint}")

    def refuse_act(self, reason: str) -> None:
        """Refuses what changes a seal. Raises SealError where no reason is given, or nothing is sealed."""
        if not reason.strip():
            raise SealError("--reason is empty: say why, it stands in the log for ever")
        self.refuse_unsealed()
        if self.log.read(CHECKPOINT) is None:
            raise SealError(f"{self.log.place()} has no checkpoint: nothing is sealed there")

    def verifier(self, key: str | None = None) -> Verifier:
        """The key that somebody names, or the one beside the log. Raises SealError, BadKey."""
        self.refuse_unsealed()
        return own_verifier(self.log) if key is None else read_verifier(key)

    @contextmanager
    def reading(self) -> Iterator[SealedLedger]:
        """The ledger in one moment, which is looked at first. Raises StoreRefused."""
        with self.place.reading(say_unseen) as ledger, ledger.moment():
            yield ledger

    def open_sealer(self, key_file: Path | None) -> Sealer:
        """key_file: of an option. Raises as Sealer, and StoreRefused."""
        return open_sealer(self.place, key_file or self.key_file, "")

    @property
    def key_file(self) -> Path:
        """Raises SealError: it has to be named."""
        if self.own_key_file is None:
            raise SealError("the key is in no database: name its file with --key-file or AUDIT_SEAL_KEY_FILE")
        return self.own_key_file


def where(db: Path | None, seal: Path | None, *, may_ask_service: bool = False) -> Where:
    """The database, the seal and its key: those of the service's settings where no options name others.

    may_ask_service: for a command that has --target.
    """
    if db is not None:
        place = place_of(named_database(str(db)), seal)
        return Where(place, place.open_log(), place.key_file)
    from audit_svc.settings import AuditSettings
    from service_kit.settings import load_settings

    settings = load_settings(AuditSettings)
    place = place_of(settings.db, seal or settings.seal_dir)
    if may_ask_service and isinstance(place, FolderPlace):
        may_ask(place.database)
    return Where(place, place.open_log(), (None if seal else settings.seal_key_file) or place.key_file)
