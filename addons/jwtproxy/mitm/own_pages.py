"""What each of our own pages is made of, in the master that answers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mitmproxy import ctx
from mitmproxy.connection import Client

from ..observe import downloads, health, home, metrics, pages, recent, report, status_page
from ..observe.counters import Counters
from ..observe.pages import Page, Read
from ..observe.sharing import Sharing
from . import authority, limits, pages_mode, signer
from .recent import Recent


class OwnPages:
    """Makes them, for requests with these header fields."""

    def __init__(
        self, counters: Counters, names: Sequence[str], phase: Callable[[], str], kept: Recent, sharing: Sharing
    ) -> None:
        """`names`: of the limits that are counted. `phase`: why requests had better go elsewhere, empty if nothing."""
        self._counters, self._names, self._phase, self._kept, self._sharing = counters, names, phase, kept, sharing
        self._read: dict[str, Read] = {
            pages.STATUS_PATH: self._status,
            pages.RECENT_PATH: self._recent,
            pages.LIVE_PATH: lambda headers: health.LIVE,
            pages.READY_PATH: lambda headers: health.ready(self._phase() or signer.lacking(ctx.master.addons)),
            pages.METRICS_PATH: lambda headers: metrics.page(headers, counters, signer.facts(ctx.master.addons)),
            pages.JWKS_PATH: lambda headers: pages.jwks(headers, *signer.published(ctx.master.addons)),
            **{path: partial(_certificate, path) for path in downloads.KINDS},
        }

    def for_client(self, client: Client, *, apart: bool) -> dict[str, Read]:
        """All of them, by their paths. `apart`: whether they are at an address of their own."""
        url = partial(pages_mode.proxy_url, ctx.master.addons.get("proxyserver"), client)
        own: dict[str, Read] = {
            pages.PAC_PATH: lambda headers: downloads.autoconfig(url(headers)),
            pages.HOME_PATH: lambda headers: home.page(headers, url(headers), apart=apart, kept=self._keeps),
        }
        return self._read | own

    def _status(self, headers: Mapping[str, str]) -> Page:
        told = limits.told(ctx.options, self._names, self._counters.reached)
        members = report.members(self._counters, signer.facts(ctx.master.addons))
        return status_page.page(headers, members | {"limits": told} | self._sharing.members(), kept=self._keeps)

    def _recent(self, headers: Mapping[str, str]) -> Page:
        return recent.page(headers, self._kept.rows, self._kept.most) if self._keeps else recent.OFF

    @property
    def _keeps(self) -> bool:
        return self._kept.most > 0


def _certificate(path: str, headers: Mapping[str, str]) -> Page:
    return downloads.certificate(path, *authority.certificate(ctx.master.addons), headers)
