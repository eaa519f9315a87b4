"""Recordings are their owner's alone."""

from pathlib import Path

import pytest
from mitmproxy.addons import save, savehar
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm import patches

pytestmark = pytest.mark.usefixtures("pristine")


def test_only_the_owner_can_read_recordings() -> None:
    patches.install()
    with taddons.context(save.Save(), savehar.SaveHar()) as context:
        context.options.update(save_stream_file="made/%Y-flows", hardump="flows.har")
        recorder, har = context.master.addons.get("save"), context.master.addons.get("savehar")
        recorder.response(tflow.tflow(resp=True))
        har.response(tflow.tflow(resp=True))
        recorder.done()
        har.done()
    made = [*Path("made").iterdir(), Path("flows.har")]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o600, 0o600]
    assert all(path.stat().st_size for path in made)


def test_a_file_that_is_there_keeps_its_mode() -> None:
    patches.install()
    Path("flows").touch(0o640)
    Path("flows").chmod(0o640)
    with taddons.context(save.Save()) as context:
        context.options.update(save_stream_file="+flows")
        context.master.addons.get("save").done()
    assert Path("flows").stat().st_mode & 0o777 == 0o640
