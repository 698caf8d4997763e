"""The ways to the ledger and to other services, from the settings of a service that records."""

from recording.channel.tls import ClientFiles
from recording.channel.watched import WrongFile, warn_of_readers
from recording.delivery import connection
from service_kit.producing.settings import ProducerSettings
from service_kit.settings import name_variable


class WrongTarget(Exception):
    """A file for another service cannot be used; the message begins with the variable that names it."""


def open_target(settings: ProducerSettings, way: str = "audit") -> connection.Target:
    """The service that settings name by {way}_target, {way}_tls_… and {way}_token_file.

    Raises:
        WrongTarget: a file cannot be used.
    """
    ca, certificate, key = (getattr(settings, f"{way}_tls_{name}") for name in ("ca", "cert", "key"))
    address, token_file = getattr(settings, f"{way}_target"), getattr(settings, f"{way}_token_file")
    warn_of_readers(key, token_file)
    files = ClientFiles(ca, certificate, key) if ca else None
    try:
        return connection.open_target(address, files, token_file, settings.producer_name)
    except WrongFile as error:
        raise WrongTarget(name_variable(settings, error)) from None
