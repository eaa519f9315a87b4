"""The certificate of the CA by which clients are shown upstreams, in the forms that systems take; never its key."""

from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs12

from ..observe import pages

_NAME = b"jwtproxy CA"


def certificate(addons: Any) -> tuple[dict[str, bytes], str]:
    """The certificate that is in use now, by the path of each form, and a tag for it; nothing where there is none.

    It is not read from the folder of the CA, in which the key lies too.
    """
    tls = addons.get("tlsconfig")
    store = getattr(tls, "certstore", None)
    if not store:
        return {}, ""
    made = store.default_ca
    certificate = made.to_cryptography()
    forms = {
        pages.PEM_PATH: certificate.public_bytes(Encoding.PEM),
        pages.DER_PATH: certificate.public_bytes(Encoding.DER),
        pages.PKCS12_PATH: pkcs12.serialize_key_and_certificates(_NAME, None, certificate, None, NoEncryption()),
    }
    return forms, made.fingerprint().hex()[:32]
