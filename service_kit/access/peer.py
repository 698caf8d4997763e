r"""The names in a peer's certificate, read by `cryptography`.

gRPC hands names on as C does, which end at the first NUL: `ops\0.evil.example` would be `ops`.
"""

from collections.abc import Sequence
from functools import lru_cache

from recording.controls import has_control
from service_kit.handlers import Context


def certificate_names(context: Context) -> Sequence[str]:
    """The URIs and common names of the certificate of a call's peer; none where it showed none that can be read.

    A name with a control character counts as none.
    """
    return next(map(_names, context.auth_context().get("x509_pem_cert", ())), ())


@lru_cache(maxsize=256)
def _names(pem: bytes) -> Sequence[str]:
    from cryptography import x509  # only with TLS: it takes long to load

    uris: Sequence[str] = ()
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        common = [part.value for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        pass
    except ValueError:
        return ()
    return tuple(name for name in (*uris, *common) if isinstance(name, str) and not has_control(name))
