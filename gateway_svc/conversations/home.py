"""Opens the home of conversations that a deployment has chosen."""

from pathlib import Path

from gateway_svc.conversations.encryption import SETTING, Keys
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.errors import SettingsError
from recording.channel.watched import WrongFile
from service_kit.extras import is_missing


def read_session_keys(path: Path | None, *, encrypts: bool = True) -> Keys:
    """The keys of a file, see Keys.of_file().

    Raises:
        SettingsError: it cannot be used.
    """
    try:
        return Keys.of_file(path, encrypts=encrypts)
    except WrongFile as error:
        raise SettingsError(f"{SETTING}: {error}") from None


def open_home(
    state_dir: Path, database: str | None, keys: Keys, *, synced: bool = True, memory_bytes: int = 0
) -> Conversations:
    """The sessions below a state directory, or those in a PostgreSQL database.

    Raises:
        SettingsError: the database is not what is needed, or the keys are not those of the sessions.
        OSError: the state directory cannot be used.
    """
    if database is None:
        return FileConversations(state_dir, synced=synced, memory_bytes=memory_bytes, keys=keys)
    try:
        from gateway_svc.conversations.postgres.store import PostgresConversations
    except ImportError:
        raise SettingsError(f"GATEWAY_SESSIONS: needs psycopg: {is_missing('postgres')}") from None
    return PostgresConversations(database, synced=synced, memory_bytes=memory_bytes, keys=keys)
