"""The certificate of a CA: what it says of itself, and what it is known by."""

import base64
import contextlib
import re
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.utils import CryptographyDeprecationWarning

from jwtproxy.config.errors import SettingsError

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY-----")


class Certificate(NamedTuple):
    """The certificate that clients have to trust."""

    pem: str
    fingerprint: str
    """Of the whole, by SHA-256, in lower-case hexadecimal."""
    spki: str
    """Of its public key, by SHA-256, in base64: what Chromium is given."""
    subject: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def parse(cls, data: bytes, place: str) -> Self:
        """The one certificate in a PEM text, which must be a CA's. Raises SettingsError."""
        text = data.decode(errors="replace")
        if _PRIVATE.search(text):
            raise SettingsError(f"{place} has a private key in it", "only the CA's certificate is for clients")
        found = [*certificates(text)]
        if len(found) != 1:
            raise SettingsError(f"{place} holds {len(found) or 'no'} certificates", "one is needed, in PEM form")
        (certificate,) = found
        if not _is_ca(certificate):
            raise SettingsError(f"{place} holds a certificate that is no CA's", "clients have to trust the CA's")
        return cls(
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            certificate.fingerprint(hashes.SHA256()).hex(),
            _spki(certificate),
            certificate.subject.rfc4514_string(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )


def fingerprints(text: str) -> frozenset[str]:
    """Those of all certificates in a text, which may hold other things, too."""
    return frozenset(certificate.fingerprint(hashes.SHA256()).hex() for certificate in certificates(text))


def with_colons(fingerprint: str) -> str:
    """As browsers and openssl show it."""
    return ":".join(re.findall("..", fingerprint.upper()))


def without_colons(text: str, origin: str) -> str:
    """A fingerprint as we write it, of one as people do. Raises SettingsError."""
    plain = re.sub(r"[\s:]", "", text).lower()
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise SettingsError(f"bad value {text!r} for {origin}", "use the one that jwtproxy-run ca prints")
    return plain


def blocks(text: str) -> list[str]:
    """The certificates in a text, in PEM, without what people write between them."""
    return _BLOCK.findall(text)


def certificates(text: str) -> Iterator[x509.Certificate]:
    """The same, of those that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # old roots have odd serial numbers
        for block in blocks(text):
            with contextlib.suppress(ValueError):  # damaged: it is nobody's
                yield x509.load_pem_x509_certificate(block.encode())


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _spki(certificate: x509.Certificate) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate.public_key().public_bytes(serialization.Encoding.DER, form))
    return base64.b64encode(digest.finalize()).decode()
