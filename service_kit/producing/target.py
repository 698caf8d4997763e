"""The way to the ledger, from the settings of a service that records."""

from recording.channel.tls import ClientFiles
from recording.channel.watched import WrongFile, warn_of_readers
from recording.delivery import connection
from service_kit.producing.settings import ProducerSettings
from service_kit.settings import name_variable


class WrongTarget(Exception):
    """A file for the audit service cannot be used; the message begins with the variable that names it."""


def open_target(settings: ProducerSettings) -> connection.Target:
    """The audit service that settings name.

    Raises:
        WrongTarget: a file cannot be used.
    """
    ca, certificate, key = settings.audit_tls_ca, settings.audit_tls_cert, settings.audit_tls_key
    warn_of_readers(key, settings.audit_token_file)
    files = ClientFiles(ca, certificate, key) if ca else None
    try:
        return connection.open_target(settings.audit_target, files, settings.audit_token_file, settings.producer_name)
    except WrongFile as error:
        raise WrongTarget(name_variable(settings, error)) from None
