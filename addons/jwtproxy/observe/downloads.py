"""What a client needs to use the proxy, as files: the certificate of its CA, and where the proxy is."""

import re
from collections.abc import Mapping

from ..conduct.addresses import parse_ip
from ..conduct.target import LONGEST_AUTHORITY
from . import pages
from .pages import Page

KINDS = {
    pages.PEM_PATH: ("application/x-pem-file", "jwtproxy-ca.pem"),
    pages.DER_PATH: ("application/x-x509-ca-cert", "jwtproxy-ca.cer"),
    pages.PKCS12_PATH: ("application/x-pkcs12", "jwtproxy-ca.p12"),
}
"""By path: the media type, and what the file is called that a browser makes of it."""

NO_CA = pages.text(503, "the proxy has no CA whose certificate it could give out")

NO_WAY = pages.text(404, "the proxy stands in front of a server, and is none that browsers are told of")

_PAC = "application/x-ns-proxy-autoconfig"
_PLAIN = re.compile(r"([0-9A-Za-z](?:[0-9A-Za-z._-]*[0-9A-Za-z])?\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")


def certificate(path: str, forms: Mapping[str, bytes], etag: str, headers: Mapping[str, str]) -> Page:
    """The certificate of the CA as the path wants it, of its `forms`; that there is none where there are none.

    `etag`: names the certificate, as some forms of one and the same differ each time they are made.
    """
    if path not in forms:
        return NO_CA
    kind, name = KINDS[path]
    tag = f"{etag}{path[-4:]}"
    own = {
        "Content-Type": kind,
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-cache",
        "ETag": f'"{tag}"',
    }
    return pages.unless_known(headers, tag, Page(200, headers=own, data=forms[path]))


def autoconfig(proxy: str) -> Page:
    """A script that sends all a browser asks for by this proxy (https://en.wikipedia.org/wiki/Proxy_auto-config).

    It leaves no way around. `proxy`: its URL; empty where browsers cannot use it.
    """
    if not proxy:
        return NO_WAY
    scheme, place = proxy.split("://")
    way = "HTTPS" if scheme == "https" else "PROXY"
    script = f'function FindProxyForURL(url, host) {{\n  return "{way} {place}";\n}}\n'
    return Page(200, script, {"Content-Type": _PAC, "Cache-Control": "no-store", "Vary": "Host"})


def address(headers: Mapping[str, str], local: tuple[str, int], *, secure: bool) -> str:
    """Host and port of the proxy as its client has named it, or of `local`, the address that it has connected to.

    `secure`: whether the client speaks to the proxy by TLS.
    """
    return _asked(headers.get("host", ""), 443 if secure else 80) or authority(*local)


def _asked(named: str, otherwise: int) -> str:
    """The host and port of a Host field; empty where it does not plainly name both, so that no script is made of it."""
    found = _PLAIN.fullmatch(named) if len(named) <= LONGEST_AUTHORITY else None
    if not found or not 0 < (port := int(found[2] or otherwise)) < 65536:
        return ""
    host = found[1]
    if host.startswith("[") and not parse_ip(host[1:-1]):
        return ""
    return f"{host}:{port}"


def authority(host: str, port: int) -> str:
    """An address as URLs have it."""
    ip = parse_ip(host)
    host = str(ip) if ip else host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
