"""What cannot be recorded ends the recording, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.addons import save, savehar
from mitmproxy.io import FlowReader
from mitmproxy.options import Options
from mitmproxy.test import taddons, tflow
from mitmproxy.tools.dump import DumpMaster

from jwtproxy.mitm import patches, recording

pytestmark = pytest.mark.usefixtures("pristine")

FULL = "/dev/full"


def _recording(**options: Any) -> tuple[save.Save, savehar.SaveHar]:
    patches.install()
    recorder, har = save.Save(), savehar.SaveHar()
    taddons.context(recorder, har).options.update(**options)
    return recorder, har


def _flow(size: int = 1 << 20) -> Any:
    flow = tflow.tflow(resp=True)
    assert flow.response
    flow.response.content = bytes(size)
    return flow


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_full_disk_ends_the_recording_with_one_error(caplog: pytest.LogCaptureFixture) -> None:
    recorder, har = _recording(save_stream_file=FULL)
    for _ in range(3):
        recorder.request(flow := _flow())
        recorder.response(flow)
    recorder.done()
    assert _errors(caplog) == [
        "jwtproxy: error: cannot write '/dev/full': no space left on device; its recording has ended, requests go on"
    ]
    assert recorder.stream is None
    assert not recorder.active_flows
    assert recording.status([recorder, har]) == recording.INCOMPLETE


def test_nobody_gathers_bodies_for_it_any_more() -> None:
    recorder, _ = _recording(save_stream_file=FULL)
    recorder.response(_flow())
    assert ctx.options.save_stream_file is None


def test_what_does_not_fit_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    recorder, har = _recording(save_stream_file=FULL)
    recorder.request(_flow(9))  # which the buffer takes
    recorder.done()
    assert len(_errors(caplog)) == 1
    assert recording.status([recorder, har]) == recording.INCOMPLETE


def test_a_file_that_cannot_be_opened_when_its_time_has_come(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, _ = _recording(save_stream_file="first")
    recorder.response(_flow())

    def rotate(self: save.Save) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "second")

    monkeypatch.setattr(save.Save, "maybe_rotate_to_new_file", rotate)
    recorder.response(_flow())
    (error,) = _errors(caplog)
    assert "cannot write 'second': permission denied" in error
    with Path("first").open("rb") as file:
        assert len(list(FlowReader(file).stream())) == 1


def test_a_har_that_cannot_be_written_is_one_error(caplog: pytest.LogCaptureFixture) -> None:
    recorder, har = _recording(hardump=FULL)
    har.response(_flow(9))
    har.done()
    (error,) = _errors(caplog)
    assert "cannot write '/dev/full': no space left on device" in error
    assert recording.status([recorder, har]) == recording.INCOMPLETE


def test_what_is_recorded_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    recorder, har = _recording(save_stream_file="flows", hardump="flows.har")
    for addon in (recorder, har):
        addon.response(_flow(9))
        addon.done()
    assert not _errors(caplog)
    assert recording.status([recorder, har]) == 0


def test_a_recorder_that_a_master_lacks_is_no_failure() -> None:
    assert recording.status([None]) == 0


def test_mitmdump_itself_ends_with_the_status() -> None:
    patches.install()

    async def serve() -> None:
        master = DumpMaster(Options(), with_termlog=False, with_dumper=False)
        master.options.update(hardump=FULL)
        master.addons.get("savehar").response(_flow(9))
        master.addons.get("savehar").done()  # as where the option is emptied
        await asyncio.sleep(0)
        master.should_exit.set()
        await master.done()

    with pytest.raises(SystemExit) as end:
        asyncio.run(serve())
    assert end.value.code == recording.INCOMPLETE
