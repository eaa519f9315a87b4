"""Keep tokens off the terminal: with -v mitmproxy would show them."""

from mitmproxy.addonmanager import AddonManager

from ..observe.redaction import RedactedStream


def terminal(addons: AddonManager) -> None:
    """Redact what mitmproxy prints flows and logs to."""
    termlog = addons.get("termlog")
    for printer, name in ((addons.get("dumper"), "outfp"), (termlog and termlog.logger, "file")):
        stream = getattr(printer, name, None)
        if stream and not isinstance(stream, RedactedStream):
            setattr(printer, name, RedactedStream(stream))
