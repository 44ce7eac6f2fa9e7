"""Whoever uses the keyboard stays where they are while the page changes under them."""

from __future__ import annotations

import psycopg
import pytest
from playwright.sync_api import Page, expect

from web.browser import Open

pytestmark = pytest.mark.once
FOCUSED = "document.activeElement.dataset.key || document.activeElement.dataset.section || ''"


def ended(root: psycopg.Connection, job: str, run: int, outcome: str = "failed") -> None:
    """Let a run have ended just now."""
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " started_at, finished_at, outcome) select id, name, owner, queue, kind, %s, 1, true,"
        " clock_timestamp(), clock_timestamp(), %s from rowcron.job where name = %s",
        [run, outcome, job],
    )


def live(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-connected", "")


def test_the_focus_stays_on_its_run_and_list(
    watched: Open, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """A job stands in a list many times, and a failed run in two."""
    ada.execute("insert into rowcron.job (name, command) values ('often', 'x')")
    for run in range(7001, 7004):
        ended(root, "often", run)
    page = watched().sign_in("ada")
    live(page)
    for link in ("often", "run 7002"):
        entry = page.locator("[data-section=lately] li", has_text="run 7002").last
        entry.get_by_role("link", name=link).focus()
        run = 7100 + len(link)
        ended(root, "often", run)
        expect(page.locator("[data-section=lately]")).to_contain_text(f"run {run}")
        expect(entry.get_by_role("link", name=link)).to_be_focused()


def test_the_focus_goes_to_the_section_when_what_had_it_is_gone(
    watched: Open, ada: psycopg.Connection
) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command, queue) values ('leaves', 'x', 'nowhere')"
        " returning id"
    ).fetchone()
    asked = ada.execute("select rowcron.enqueue('leaves')").fetchone()
    assert row is not None
    assert asked is not None
    page = watched().sign_in("ada")
    live(page)
    page.locator("[data-section=waiting]").get_by_role("link", name="leaves").focus()
    ada.execute("select rowcron.cancel(%s)", asked)
    expect(page.locator("[data-section=waiting]")).not_to_contain_text("leaves")
    assert page.evaluate(FOCUSED) == "waiting"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "A", "and goes on from there"


def test_regions_keep_focus_and_place(
    watched: Open, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    row = ada.execute(
        "insert into rowcron.job (name, command, schedule) values"
        " ('regions', repeat('select 1; ', 99), '@hourly') returning id"
    ).fetchone()
    assert row is not None
    ended(root, "regions", 7201)
    one = watched(viewport={"width": 360, "height": 800})
    one.sign_in("ada")
    page = one.go(f"/jobs/{row[0]}")
    live(page)
    places = {}
    for number, key in enumerate(("ahead", "runs", "command")):
        region = page.locator(f"[data-key={key}]")
        region.focus()
        region.evaluate("e => { e.scrollLeft = 20; e.dataset.old = '' }")
        place = places[key] = region.evaluate("e => e.scrollLeft")
        ended(root, "regions", 7210 + number, "succeeded")
        columns = "command = command || 'x', schedule = %s"
        ada.execute(
            f"update rowcron.job set {columns} where id = %s".encode(),
            [f"{number} * * * *", row[0]],
        )
        expect(page.locator(f"[data-key={key}]:not([data-old])")).to_have_count(1)
        expect(region).to_be_focused()
        assert region.evaluate("e => e.scrollLeft") == place
    assert places["runs"] == 20, places
