"""What each of our own pages is made of."""

from __future__ import annotations

import json

import pytest
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm.ledger import Ledger
from jwtproxy.mitm.own_pages import OwnPages
from jwtproxy.mitm.recent import Recent
from jwtproxy.observe import pages
from jwtproxy.observe.counters import Counters
from jwtproxy.observe.pages import Page
from jwtproxy.observe.sharing import Sharing


class Served:
    """The pages of a proxy that has just begun."""

    def __init__(self) -> None:
        self.counters = Counters(limits=["listen_port"])
        self.recent = Recent(Ledger(self.counters))
        self.phase = ""
        sharing = Sharing(self.counters)
        self.own = OwnPages(self.counters, ["listen_port"], lambda: self.phase, self.recent, sharing)

    def get(self, path: str, accept: str = "") -> Page:
        client = tflow.tclient_conn()
        with taddons.context():
            return self.own.for_client(client, apart=False)[path]({"host": "localhost:1", "accept": accept})


@pytest.fixture
def served() -> Served:
    return Served()


def test_each_page_has_somebody_who_makes_it(served: Served) -> None:
    with taddons.context():
        assert served.own.for_client(tflow.tclient_conn(), apart=False).keys() == pages.PAGES.keys()
    for path in pages.PAGES:
        assert served.get(path).code in (200, 404, 503)


def test_the_status_tells_the_limits(served: Served) -> None:
    served.counters.count_reached("listen_port")
    assert json.loads(served.get("/status").body)["limits"] == {"listen_port": {"value": "None", "reached": 1}}


def test_it_is_ready_unless_something_is_lacking(served: Served) -> None:
    assert served.get("/readyz").code == 200
    served.phase = "draining"
    assert served.get("/readyz").code == 503


def test_recent_requests_are_there_if_they_are_kept(served: Served) -> None:
    assert served.get("/recent").code == 404
    assert "/recent" not in served.get("/").body
    assert "/recent" not in served.get("/status", "text/html").body
    served.recent.most = 7
    assert json.loads(served.get("/recent").body) == {"most": 7, "requests": []}
    assert "/recent" in served.get("/").body
    assert "/recent" in served.get("/status", "text/html").body
