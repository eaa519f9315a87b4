"""What has a page show what it would show now, again and again, for who has it open.

The page itself is asked for, in HTML, and what differs is taken over: so each figure is put into words in one place,
with or without a script. Nothing is asked while nobody looks.
"""

from . import pages

SCRIPT = pages.asset("live.js")

END = (
    "<p id=gone class=gone role=alert hidden>The proxy does not answer. These are its last figures.</p>\n"
    f"<script>{SCRIPT}</script>\n"
)
"""What follows the page's `main`."""
