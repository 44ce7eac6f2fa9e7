"""The hours that the page Timeline tells, where clocks are put on or back."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from rowcron.web.draw import LETTER, SPANS, View

CHANGES = {  # the instant of a change
    "spring": ("Europe/Berlin", 1806195600),
    "autumn": ("Europe/Berlin", 1824944400),
    "no midnight": ("America/Santiago", 1820116800),
    "two midnights": ("America/Havana", 1825563600),
    "no day": ("Pacific/Apia", 1325239200),
    "half an hour": ("Australia/Lord_Howe", 1822491000),
    "none": ("Asia/Kathmandu", 1806195600),
}


def told(zone: str, at: int, span: str) -> list[tuple[int, str, int]]:
    return View.around(at, span, ZoneInfo(zone)).ticks()


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("change", CHANGES)
def test_an_hour_is_told_where_it_is_and_none_upon_another(change: str, span: str) -> None:
    zone, at = CHANGES[change]
    ticks = told(zone, at, span)
    assert len(ticks) >= 5
    places = [x for x, _, _ in ticks]
    assert all(b - a > 30 for a, b in pairwise(places)), ticks
    ends = [(x, x + LETTER * len(text)) for x, text, _ in ticks if text]
    assert all(end <= x for (_, end), (x, _) in pairwise(ends)), ticks
    for _, text, epoch in ticks:
        local = datetime.fromtimestamp(epoch, ZoneInfo(zone))
        assert text in ("", f"{local:%H:%M}", f"{local:%a %d %b}")


def test_an_hour_that_is_left_out_is_not_told() -> None:
    texts = [text for _, text, _ in told("Europe/Berlin", 1806195600, "6h")]
    assert texts == ["23:00", "Sun 28 Mar", "01:00", "03:00", "04:00", "05:00"]


def test_a_doubled_hour_is_told_as_time_passes() -> None:
    near = [text for _, text, _ in told("Europe/Berlin", 1824944400, "1h")]
    assert near == ["02:30", "02:40", "02:50", "02:00", "02:10", "02:20"]
    far = [text for _, text, _ in told("Europe/Berlin", 1824944400, "6h")]
    assert far == ["Sun 31 Oct", "01:00", "02:00", "02:00", "03:00", "04:00"]
