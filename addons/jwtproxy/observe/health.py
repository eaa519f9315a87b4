"""Whether the proxy serves, and whether it should be sent requests: what probes ask every few seconds."""

from . import pages
from .pages import Page

STARTING, DRAINING, UNUSABLE = "starting", "draining", "the settings cannot be used"
"""Why requests had better go elsewhere."""

LIVE = Page(200, "ok\n", {"Content-Type": pages.TEXT, "Cache-Control": "no-store"})


def ready(lacking: str) -> Page:
    """That requests are welcome, or why not. `lacking`: what is; empty if nothing."""
    return pages.text(503, f"not ready: {lacking}", None, **{"Cache-Control": "no-store"}) if lacking else LIVE
