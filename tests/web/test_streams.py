"""The streams of pages in a real browser: one for each page in view, begun anew when it ends."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from playwright.sync_api import Page, expect

from harness import Database
from rowcron.web import live
from rowcron.web.settings import WebSettings
from web.browser import Open
from web.site import WEB, Site, psql_as

pytestmark = pytest.mark.once
LOST = "The connection is lost; trying again."


def put(page: Page, *, out_of_view: bool) -> None:
    """Tell a page that its tab is another one, or the one in view: headless, all of them are."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true"
        " }); document.dispatchEvent(new Event('visibilitychange')); }",
        out_of_view,
    )


def is_live(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-connected", "")


def test_pages_out_of_view_keep_no_connection_from_others_and_are_told_later(
    watched: Open, site: Site, ada: psycopg.Connection
) -> None:
    """A browser opens six connections to a host, and no seventh."""
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('behind', 'x') returning id"
    ).fetchone()
    assert row is not None
    one = watched()
    pages = [one.sign_in("ada")]
    pages += [one.context.new_page() for _ in range(7)]
    for page in pages:
        page.goto(f"{site.url}/jobs/{row[0]}")
        is_live(page)
        put(page, out_of_view=True)
        expect(page.locator("body")).not_to_have_attribute("data-connected", "")
    ada.execute("update rowcron.job set description = 'told later' where id = %s", row)
    page = pages[0]
    loaded = page.evaluate("performance.timeOrigin")
    put(page, out_of_view=False)
    is_live(page)
    expect(page.locator(".lead")).to_have_text("told later")
    ada.execute("update rowcron.job set description = 'and later' where id = %s", row)
    expect(page.locator(".lead")).to_have_text("and later")
    assert page.evaluate("performance.timeOrigin") == loaded, "without a reload"


def test_a_page_that_was_told_something_else_is_told_that_it_is_as_it_was(
    watched: Open, site: Site, ada: psycopg.Connection, shared: Database
) -> None:
    """What a page was loaded with is not what it shows: it may have changed, and back."""
    row = ada.execute(
        "insert into rowcron.job (name, command) values ('to and fro', 'x') returning id"
    ).fetchone()
    assert row is not None
    one = watched()
    one.sign_in("ada")
    page = one.go(f"/jobs/{row[0]}")
    is_live(page)
    with psql_as(shared, "otto") as otto:
        otto.execute("select rowcron.hold('x')")
        expect(page.locator(".gates .shut", has_text="held")).to_be_visible()
        put(page, out_of_view=True)
        otto.execute("select rowcron.release()")
    other = one.context.new_page()
    other.goto(f"{site.url}/jobs/{row[0]}")  # of the mark that the first was loaded with
    is_live(other)
    put(page, out_of_view=False)
    expect(page.locator(".gates .shut", has_text="held")).to_have_count(0)


def test_open_pages_come_to_the_sign_in_page_after_a_restart(
    watched: Open, shared: Database
) -> None:
    """Sessions end with the process, and the answer to a page that comes back is 401."""
    settings = WebSettings(conninfo=shared.url(WEB), tick=0.2)
    site = Site(settings)
    one = watched(site=site)
    try:
        page = one.sign_in("ada")
        is_live(page)
    finally:
        site.stop()
    expect(page.locator("#trouble")).to_have_text(LOST)
    again = Site(replace(settings), port=site.settings.port)
    try:
        expect(page.locator("h1")).to_have_text("Sign in", timeout=30_000)
    finally:
        again.stop()
    one.wrong[:] = [said for said in one.wrong if "net::ERR_" not in said]


def test_a_stream_that_is_refused_is_asked_for_again(
    watched: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser tries no more by itself after an answer such as 429."""
    with monkeypatch.context() as full:
        full.setattr(live, "MOST_VIEWERS", 0)
        page = watched().sign_in("ada")
        expect(page.locator("#trouble")).to_have_text(LOST)
    is_live(page)
    expect(page.locator("#trouble")).to_have_text("")


def test_the_page_of_a_run_whose_job_is_deleted_tells_its_end(
    watched: Open, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    job = ada.execute(
        "insert into rowcron.job (name, command, queue) values ('deleted while it ran', 'x',"
        " 'nobody''s') returning id"
    ).fetchone()
    row = ada.execute("select rowcron.enqueue('deleted while it ran')").fetchone()
    assert row is not None
    one = watched()
    one.sign_in("ada")
    page = one.go(f"/runs/{row[0]}")
    expect(page.locator("body")).to_have_attribute("data-connected", "")
    root.execute(
        "update rowcron.run set state = 'running', worker_id = gen_random_uuid(),"
        " seal = gen_random_uuid(), started_at = clock_timestamp() where id = %s",
        [row[0]],
    )
    expect(page.locator(".sum")).to_contain_text("running")
    ada.execute("delete from rowcron.job where id = %s", job)
    expect(page.locator("#trouble")).to_contain_text("This job is gone")
    expect(page.locator("main button")).to_have_text("Cancel")
    root.execute(
        "with ended as (delete from rowcron.run where id = %s returning *)"
        " insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " due_at, started_at, finished_at, outcome) select job_id, job, owner, queue, kind, id, 1,"
        " true, due_at, started_at, clock_timestamp(), 'succeeded' from ended",
        [row[0]],
    )
    expect(page.locator(".sum")).to_contain_text("succeeded")
    expect(page.locator("main button")).to_have_text("Run again")


def test_the_page_of_a_run_stays_while_other_runs_of_its_job_change(
    watched: Open, site: Site, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    job = ada.execute(
        "insert into rowcron.job (name, command, queue) values ('beside others', 'x',"
        " 'nobody''s') returning id"
    ).fetchone()
    row = ada.execute("select rowcron.enqueue('beside others')").fetchone()
    assert job is not None
    assert row is not None
    one = watched()
    other = one.sign_in("ada")
    other.goto(f"{site.url}/jobs/{job[0]}")
    is_live(other)
    page = one.context.new_page()
    page.goto(f"{site.url}/runs/{row[0]}")
    is_live(page)
    loaded = page.evaluate("performance.timeOrigin")
    cancel = page.locator("main button", has_text="Cancel")
    cancel.focus()
    for _ in range(3):
        beside = ada.execute("select rowcron.enqueue('beside others')").fetchone()
        assert beside is not None
        expect(other.locator("[data-section=live]")).to_contain_text(f"run {beside[0]}")
    root.execute(
        "update rowcron.run set state = 'running', worker_id = gen_random_uuid(),"
        " seal = gen_random_uuid(), started_at = clock_timestamp() where id = %s",
        [row[0]],
    )
    expect(page.locator(".sum")).to_contain_text("running")
    assert page.evaluate("performance.timeOrigin") == loaded, "without a reload"
    expect(cancel).to_be_focused()
