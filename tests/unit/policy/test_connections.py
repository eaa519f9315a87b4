"""The options about how many connections clients may have."""

from __future__ import annotations

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.connections import OPTIONS

each = pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row.name)


@each
@pytest.mark.parametrize(("value", "number"), [("", None), ("auto", None), ("0", 0), ("12", 12)])
def test_it_is_a_number_or_auto(row, value: str, number: int | None) -> None:  # type: ignore[no-untyped-def]
    assert row.check(value) == number


@each
@pytest.mark.parametrize("value", ["-1", "1.5", "many", "١", "1" * 10])
def test_nothing_else(row, value: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SettingsError, match=row.name) as caught:
        row.check(value)
    assert "0 for no limit, or auto" in caught.value.hint
