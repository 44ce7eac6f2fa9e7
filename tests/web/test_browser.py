"""A person in a real browser: by keyboard, live, nothing from elsewhere, readable by all."""

from __future__ import annotations

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from harness import Database
from web.browser import Open
from web.site import Site, password, psql_as
from workers import WorkerProcess

pytestmark = pytest.mark.once
HOSTILE = "<img src=x onerror=window.hit=1>\"'><script>window.hit=2</script>{{7*7}}</textarea>"
SENT: list[int] = []


@pytest.fixture(scope="module")
def past(ada: psycopg.Connection, root: psycopg.Connection) -> int:
    """A job with a past; returns its id."""
    row = ada.execute(
        "insert into rowcron.job (name, schedule, timezone, command, description)"
        " values ('with a past', '*/5 * * * *', 'America/New_York', 'select 1', 'has a past')"
        " returning id"
    ).fetchone()
    assert row is not None
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " scheduled_for, due_at, started_at, finished_at, outcome, error, output)"
        " select j.id, j.name, j.owner, j.queue, j.kind, 5000 + n, 1, true, t.at, t.at, t.at,"
        " t.at + n * interval '1 s', case when n %% 7 = 0 then 'failed' else 'succeeded' end,"
        " case when n %% 7 = 0 then 'division by zero' end, 'printed ' || n"
        " from rowcron.job as j cross join generate_series(1, 60) as n cross join lateral"
        " (select clock_timestamp() - n * interval '20 min' as at) as t where j.id = %s",
        [row[0]],
    )
    return int(row[0])


def test_a_job_s_life_by_keyboard_alone(watched: Open, worker: WorkerProcess) -> None:
    """Sign in, make a job, see it judged while typing, see it run without reload, pause it."""
    one = watched()
    page = one.go("/")
    keys = page.keyboard
    expect(page.locator("#role")).to_be_focused()
    keys.type("ada")
    keys.press("Tab")
    keys.type(password("ada"))
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Now")

    _tab_to(page, "nav a >> text=New job")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("New job")
    _tab_to(page, "#f-name")
    keys.type("by keyboard")
    keys.press("Tab")
    keys.type("61 * * * *")
    expect(page.locator("#try")).to_contain_text("61")
    expect(page.locator("#try .bad")).to_be_visible()
    keys.press("Control+A")
    keys.type("@every 1 second")
    expect(page.locator("#try strong")).to_have_text("every second")
    expect(page.locator("#try li")).to_have_count(5)
    _tab_to(page, "#f-command")
    keys.type("select 6 * 7 as answer")
    keys.press("Tab")
    _tab_to(page, "button >> text=Create job")
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("by keyboard")

    loaded = page.evaluate("performance.timeOrigin")
    expect(page.locator("[data-section=runs] .word.succeeded").first).to_be_visible()
    count = page.locator("[data-section=runs] tbody tr").count()
    expect(page.locator("[data-section=runs] tbody tr").nth(count)).to_be_visible()
    assert page.evaluate("performance.timeOrigin") == loaded, "without a reload"

    _tab_to(page, "[data-key=pause]")
    page.wait_for_timeout(2500)  # sections change meanwhile
    expect(page.locator("[data-key=pause]")).to_be_focused()
    keys.press("Enter")
    expect(page.locator("[data-section=head]")).to_contain_text("paused")
    expect(page.locator("[data-section=changes]")).to_contain_text("enabled")


def _tab_to(page: Page, selector: str) -> None:
    wanted = page.locator(selector).first.element_handle()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("e => e === document.activeElement", wanted):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{selector} does not show that it has the focus"
            return
    raise AssertionError(f"{selector} is not reached by the keyboard")


def test_a_failure_and_its_output_are_shown_live(
    watched: Open, worker: WorkerProcess, ada: psycopg.Connection
) -> None:
    job = ada.execute(
        "insert into rowcron.job (name, command) values ('fails', 'do $$ begin raise notice"
        " ''about to fail''; perform 1 / 0; end $$') returning id"
    ).fetchone()
    one = watched()
    page = one.sign_in("ada")
    other = one.context.new_page()
    other.goto(f"{one.site.url}/jobs/{job[0]}")  # type: ignore[index]
    other.click("text=Run now")
    failed = page.locator("[data-section=lately] li", has_text="fails").first
    expect(failed).to_contain_text("division by zero")
    failed.locator("a", has_text="run").click()
    expect(page.locator("h1")).to_contain_text("Run")
    expect(page.locator("pre.error")).to_contain_text("division by zero")
    expect(page.locator("main")).to_contain_text("about to fail")
    page.click("text=Run again")
    expect(page.locator("dl.def")).to_contain_text("repeats")
    expect(page.locator("h2", has_text="Attempt 1: failed")).to_be_visible()  # came live


def test_now_tells_at_once_what_another_session_does(
    watched: Open, ada: psycopg.Connection
) -> None:
    page = watched().sign_in("ada")
    ada.execute("insert into rowcron.job (name, kind, command) values ('parked', 'shell', 'true')")
    ada.execute("select rowcron.enqueue('parked')")
    expect(page.locator("[data-section=waiting]")).to_contain_text("parked")
    ada.execute("select rowcron.cancel(run_id) from rowcron.active where job = 'parked'")
    expect(page.locator("[data-section=waiting]")).not_to_contain_text("parked")
    expect(page.locator("[data-section=lately]")).to_contain_text("parked")


def test_buttons_are_there_for_whoever_may(watched: Open, past: int) -> None:
    page = watched().sign_in("vic")
    page.goto(f"{watched().site.url}/jobs/{past}")
    expect(page.locator("h1")).to_have_text("with a past")
    assert page.locator("main button").count() == 0
    assert page.locator("nav a", has_text="New job").count() == 0
    one = watched()
    page = one.sign_in("otto")
    one.go(f"/jobs/{past}")
    assert page.locator("main button").all_inner_texts() == ["Run now", "Pause"]
    assert page.locator("main a", has_text="Edit").count() == 0


def test_a_mistake_in_the_form_is_told_at_its_field_and_nothing_typed_is_lost(
    watched: Open, ada: psycopg.Connection
) -> None:
    one = watched()
    one.sign_in("ada")
    page = one.go("/jobs/new")
    page.fill("#f-name", "a.b")
    page.fill("#f-command", "select 'kept'")
    page.click("text=Create job")
    expect(page.locator("#problem")).to_contain_text('name "a.b" is not valid')
    expect(page.locator("#f-name")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#f-command")).to_have_value("select 'kept'")
    page.fill("#f-name", "mended")
    page.click("text=Create job")
    expect(page.locator("h1")).to_have_text("mended")
    page.click("text=Edit")
    ada.execute("update rowcron.job set priority = 3 where name = 'mended'")
    page.fill("#f-description", "mine")
    page.click("button >> text=Save")
    expect(page.locator("#problem")).to_contain_text("changed meanwhile")


def test_what_is_hostile_stays_text(
    watched: Open, ada: psycopg.Connection, root: psycopg.Connection, shared: Database
) -> None:
    """In every text field, through the form and through psql, on every page."""
    one = watched()
    one.sign_in("ada")
    page = one.go("/jobs/new")
    safe = HOSTILE.replace(".", "")  # a name holds no dot
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    fields = page.locator("form.job input:not([type=hidden]), form.job textarea")
    names = [str(field.get_attribute("name")) for field in fields.all()]
    assert len(names) > 20
    usual = {name: page.input_value(f"#f-{name}") for name in names}
    for name in names:
        page.fill(f"#f-{name}", HOSTILE)
    expect(page.locator("#try .bad")).to_be_visible()
    page.click("text=Create job")
    expect(page.locator("#problem")).to_be_visible()
    for name in names:
        expect(page.locator(f"#f-{name}")).to_have_value(HOSTILE)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for name in names:
        page.fill(f"#f-{name}", usual[name])
    for name in ("name", "command", "description", "queue"):
        page.fill(f"#f-{name}", safe)
    page.fill("#f-args", f'{{"x": {_json(HOSTILE)}}}')
    page.fill("#f-schedule", "@hourly")
    page.click("text=Create job")
    expect(page.locator("h1")).to_have_text(safe)

    job = int(page.url.rpartition("/")[2])
    ada.execute("update rowcron.job set description = %s where id = %s", [HOSTILE + "2", job])
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " finished_at, started_at, outcome, reason, error, output, result, key)"
        " select j.id, j.name, j.owner, j.queue, j.kind, 7777, 1, true, clock_timestamp(),"
        " clock_timestamp(), 'failed', %(x)s, %(x)s, %(x)s, to_jsonb(%(x)s::text), %(x)s"
        " from rowcron.job as j where j.id = %(job)s",
        {"x": HOSTILE, "job": job},
    )
    with psql_as(shared, "otto") as otto:
        otto.execute("select rowcron.hold(%s)", [HOSTILE])
    try:
        paths = ["/", "/jobs", f"/jobs/{job}", f"/jobs/{job}/edit", "/runs/7777", "/timeline"]
        paths += [f"/{p}?search={HOSTILE}" for p in ("jobs", "timeline")]
        paths += [f"/sign-in?next={HOSTILE}", f"/nothing/{HOSTILE}"]
        for path in paths:
            page = one.go(path)
            if path in ("/", f"/jobs/{job}"):
                expect(page.locator("body")).to_have_attribute("data-connected", "")
            assert page.evaluate("window.hit") is None, path
            assert page.locator("img, main script").count() == 0, path
            assert "49" not in page.inner_text("h1"), path
    finally:
        with psql_as(shared, "otto") as otto:
            otto.execute("select rowcron.release()")
    with one.site.client() as client:
        given = {"role": HOSTILE, "password": "x"}
        assert "<img" not in client.post("/sign-in", data=given).text


def test_the_form_reaches_every_column_and_changes_none_unasked(
    watched: Open, ada: psycopg.Connection
) -> None:
    """All that a person may set, from the table itself; saved as it was, then changed."""
    given = {
        "starts_at": "2030-01-01 08:00:00.25+01", "ends_at": "2031-01-01 00:00+00", "max_runs": 7,
        "priority": -3, "enabled": False, "timeout": "90 s", "max_attempts": 4,
        "retry_delay": "1 min", "retry_backoff": 1.5, "max_retry_delay": "2 h",
        "retry_jitter": 0.00001, "on_missed": "all", "missed_grace": "1 month", "max_missed": 9,
        "on_overlap": "allow", "max_running": 2, "on_lost": "fail", "max_lost": 5,
        "on_gap": "skip", "on_fold": "twice", "jitter": "3 s", "keep": "5 days",
        "description": "all\nof it", "schedule": "0 3 * * *", "timezone": "Europe/Berlin",
        "args": '{"a": 0.1234567890123456789012, "b": 1e400}', "queue": "q",
        "command": "\n\nselect 1,\r\n 2",
    }  # fmt: skip
    names, marks = ", ".join(given), ", ".join(["%s"] * len(given))
    row = ada.execute(
        f"insert into rowcron.job (name, {names}) values ('all columns', {marks})"
        " returning id".encode(),
        list(given.values()),
    ).fetchone()
    assert row is not None
    stored = (
        "select to_jsonb(j) - 'updated_at' || jsonb_build_object('args', j.args::text)"
        " from rowcron.job as j where j.id = %s"
    )
    before = ada.execute(stored, [row[0]]).fetchone()[0]  # type: ignore[index]
    one = watched()
    one.sign_in("ada")
    page = one.go(f"/jobs/{row[0]}/edit")
    shown = set(page.evaluate(
        "[...document.querySelectorAll('form.job [name]')].map(e => e.name)"
    )) - {"csrf", "version"}  # fmt: skip
    assert shown == before.keys() - {"id", "owner", "created_at"}
    page.click("button >> text=Save")
    expect(page.locator("h1")).to_have_text("all columns")
    assert ada.execute(stored, [row[0]]).fetchone()[0] == before  # type: ignore[index]
    page = one.go(f"/jobs/{row[0]}/edit")
    page.fill("#f-command", "\n" + page.input_value("#f-command"))
    page.fill("#f-ends_at", "")
    page.select_option("#f-on_gap", "")
    page.fill("#f-retry_backoff", "3")
    page.select_option("#f-enabled", "true")
    page.click("button >> text=Save")
    expect(page.locator("h1")).to_have_text("all columns")
    after = ada.execute(stored, [row[0]]).fetchone()[0]  # type: ignore[index]
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"command", "ends_at", "on_gap", "retry_backoff", "enabled"}
    assert after["command"] == "\n\n\nselect 1,\n 2", "the lines that were typed"


def test_a_job_s_definition_changes_without_a_reload(
    watched: Open, ada: psycopg.Connection
) -> None:
    """What a colleague changes shows in all that the open page says of the job."""
    row = ada.execute(
        "insert into rowcron.job (name, command, schedule) values ('told', 'x', '@hourly')"
        " returning id"
    ).fetchone()
    assert row is not None
    one = watched()
    one.sign_in("ada")
    page = one.go(f"/jobs/{row[0]}")
    expect(page.locator("body")).to_have_attribute("data-connected", "")
    loaded = page.evaluate("performance.timeOrigin")
    ada.execute(
        "update rowcron.job set name = 'told anew', command = e'\\nselect 2',"
        " description = 'lead <b>', schedule = '@daily', queue = 'elsewhere' where id = %s",
        [row[0]],
    )
    expect(page.locator("h1")).to_have_text("told anew")
    expect(page).to_have_title("told anew · rowcron")
    expect(page.locator(".lead")).to_have_text("lead <b>")
    expect(page.locator(".over")).to_contain_text("queue elsewhere")
    expect(page.locator("[data-section=def] pre")).to_contain_text("select 2")
    assert page.locator("[data-section=def] pre").text_content() == "\nselect 2"
    expect(page.locator("[data-section=def] dl")).to_contain_text("@daily")
    assert page.evaluate("performance.timeOrigin") == loaded


def test_a_long_name_leaves_the_other_columns_in_view(
    watched: Open, ada: psycopg.Connection
) -> None:
    ada.execute(
        "insert into rowcron.job (name, command, schedule) values (repeat('longname', 23), 'x',"
        " '7 3 * * *'), ('short of three words', 'x', null)"
    )
    try:
        one = watched(viewport={"width": 1280, "height": 800})
        one.sign_in("ada")
        page = one.go("/jobs")
        wide = page.locator(".wide")
        assert wide.evaluate("e => e.scrollWidth <= e.clientWidth")
        heights = "e => e.getClientRects().length"
        assert page.locator("a.name", has_text="short of three words").evaluate(heights) == 1
        assert page.locator("a.name", has_text="longname").evaluate(heights) > 1
    finally:
        ada.execute("delete from rowcron.job where name ~ 'longname|short of'")


def test_the_timeline_changes_without_a_reload(
    watched: Open, past: int, root: psycopg.Connection
) -> None:
    one = watched()
    one.sign_in("ada")
    page = one.go("/timeline?search=with a past")
    expect(page.locator("body")).to_have_attribute("data-connected", "")
    loaded = page.evaluate("performance.timeOrigin")
    assert page.locator("rect.bar.lost").count() == 0
    root.execute(
        "insert into rowcron.ledger (job_id, job, owner, queue, kind, run_id, attempt, final,"
        " started_at, finished_at, outcome) select id, name, owner, queue, kind, 6001, 1, true,"
        " clock_timestamp() - interval '2 h', clock_timestamp(), 'lost' from rowcron.job"
        " where id = %s",
        [past],
    )
    expect(page.locator("rect.bar.lost")).to_have_count(1)
    assert page.evaluate("performance.timeOrigin") == loaded
    page.locator(".tl-ticks a").last.click()
    expect(page.locator(".zoom [aria-current]").first).to_have_text("6h")


def test_the_timeline_shows_its_first_job_without_a_reload(
    watched: Open, ada: psycopg.Connection
) -> None:
    one = watched(viewport={"width": 600, "height": 800})
    one.sign_in("ada")
    page = one.go("/timeline?search=first of its name")
    expect(page.locator("body")).to_have_attribute("data-connected", "")
    loaded = page.evaluate("performance.timeOrigin")
    none = page.get_by_text("No job is called so.")
    expect(none).to_be_visible()
    expect(page.get_by_role("region", name="Runs and occurrences by job")).to_have_count(0)
    expect(page.locator(".legend")).to_be_hidden()
    row = ada.execute(
        "insert into rowcron.job (name, command, schedule) values ('first of its name', 'x',"
        " '@hourly') returning id"
    ).fetchone()
    assert row is not None
    expect(page.locator(".tl-names a")).to_have_text("first of its name")
    expect(page.get_by_role("region", name="Runs and occurrences by job")).to_be_visible()
    expect(page.locator(f"[data-section=j{row[0]}] .mark.planned")).to_be_visible()
    expect(page.locator(".legend")).to_be_visible()
    expect(none).to_be_hidden()
    assert page.locator(".tl-plot").evaluate("e => e.scrollLeft") > 100, "the present is in view"
    ada.execute("delete from rowcron.job where id = %s", row)
    expect(none).to_be_visible()
    expect(page.locator(".legend")).to_be_hidden()
    assert page.evaluate("performance.timeOrigin") == loaded


def _json(text: str) -> str:
    import json

    return json.dumps(text)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_every_page_is_accessible_and_fits(
    watched: Open, past: int, theme: str, width: int, ada: psycopg.Connection
) -> None:
    one = watched(color_scheme=theme, viewport={"width": width, "height": 800})
    page = one.go("/sign-in")
    checked = 0
    paths = ["/sign-in", "/", "/timeline", "/jobs", "/jobs/new", f"/jobs/{past}", "/runs/5007"]
    for path in paths:
        page = one.go(path) if path == "/sign-in" or checked > 1 else one.sign_in("ada")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
        found = Axe().run(page)
        assert found.violations_count == 0, (path, found.generate_report())
        checked += 1
        SENT.append(len(found.response["passes"]))
    assert checked == len(paths)


def test_swagger_ui_signs_its_requests(watched: Open) -> None:
    one = watched()
    one.sign_in("ada")
    page = one.go("/api/docs")
    page.locator("#operations-jobs-create_job .opblock-summary-control").click()
    page.locator("#operations-jobs-create_job .execute").click()
    live = page.locator("#operations-jobs-create_job .live-responses-table")
    expect(live).to_contain_text("201")


def test_a_session_that_ends_closes_its_pages(watched: Open, site: Site) -> None:
    one = watched()
    page = one.sign_in("ada")
    expect(page.locator("body")).to_have_attribute("data-connected", "")
    site.state.sessions.end_all_of(site.state.door.logins["ada"][1])
    expect(page.locator("h1")).to_have_text("Sign in", timeout=30_000)
