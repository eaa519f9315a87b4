"""Recordings are their owner's alone."""

import os
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


def record(path: str) -> None:
    """Begin and end a recording of nothing."""
    patches.install()
    with taddons.context(save.Save()) as context:
        context.options.update(save_stream_file=path)
        context.master.addons.get("save").done()


def there(mode: int, content: bytes = b"") -> Path:
    path = Path("fl ows")
    path.write_bytes(content)
    path.chmod(mode)
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "jwtproxy.mitm.private_files"]


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o666, 0o602])
@pytest.mark.parametrize("appended", ["+", ""])
def test_one_that_was_there_is_taken_from_others(appended: str, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    path = there(mode, b"was there")
    record(f"{appended}{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == (b"was there" if appended else b"")
    assert not warnings(caplog)


@pytest.mark.parametrize("name", ["flows", "./flows", "a//flows", "~nobody-there/flows"])
def test_it_is_looked_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at each flow, however its path is written."""
    seen: list[Path] = []
    monkeypatch.setattr("jwtproxy.mitm.private_files._keep_private", seen.append)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    patches.install()
    with taddons.context(save.Save()) as context:
        context.options.update(save_stream_file=name)
        for _ in range(3):
            context.master.addons.get("save").response(tflow.tflow(resp=True))
        context.master.addons.get("save").done()
    assert seen == [Path(name)]


def test_so_is_a_har_file() -> None:
    path = there(0o644)
    patches.install()
    with taddons.context(har := savehar.SaveHar()) as context:
        context.options.update(hardump=str(path))
        har.response(tflow.tflow(resp=True))
        har.done()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_that_leads_nowhere_is_followed() -> None:
    Path("link").symlink_to("flows")
    record("link")
    assert Path("flows").stat().st_mode & 0o777 == 0o600


def test_the_home_folder_is_known() -> None:
    record("~/made/flows")
    assert Path("made/flows").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "told"), [(0o644, True), (0o640, True), (0o600, False), (0o622, False)])
def test_one_of_another_user_that_others_can_read_is_a_warning(
    mode: int, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = there(mode)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    record(f"+{path}")
    assert path.stat().st_mode & 0o777 == mode
    text = "jwtproxy: warning: others can read the recording 'fl ows'; have its owner run: chmod 600 'fl ows'"
    assert warnings(caplog) == [text] * told


def test_so_is_one_whose_folder_knows_no_modes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def chmod(path: Path, mode: int) -> None:
        raise PermissionError

    path = there(0o644)
    monkeypatch.setattr(Path, "chmod", chmod)
    record(str(path))
    assert len(warnings(caplog)) == 1


def test_what_is_no_file_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    before = Path("/dev/null").stat().st_mode
    record("/dev/null")
    assert Path("/dev/null").stat().st_mode == before
    os.mkfifo("pipe")
    Path("pipe").chmod(0o644)
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    record("pipe")
    os.close(reader)
    assert Path("pipe").stat().st_mode & 0o777 == 0o644
    assert not warnings(caplog)
