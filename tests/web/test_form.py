"""The form of a job: nobody's change is overwritten unseen, what was not touched stays as it is."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import httpx
import psycopg
import pytest

from web.site import Bearer, Site

STORED = (
    "select to_jsonb(j) - 'updated_at' || jsonb_build_object('args', j.args::text)"
    " from rowcron.job as j where j.id = %s"
)


class Form(HTMLParser):
    """What a browser would send back of a page's form."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.links: list[str] = []
        self._open: str | None = None
        self._texts: set[str] = set()
        self._inside = self._first = False
        self.feed(text)
        for name in self._texts:
            value = self.fields[name].replace("\r\n", "\n").replace("\r", "\n")
            self.fields[name] = value.removeprefix("\n").replace("\n", "\r\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name"), given.get("value") or ""
        if tag == "form":
            self._inside = given.get("class") == "job"
        elif tag == "a":
            self.links.append(given.get("href") or "")
        elif self._inside and tag == "input" and name:
            self.fields[name] = value.replace("\r", "").replace("\n", "")
        elif self._inside and tag in ("textarea", "select") and name:
            self._open, self._first = name, True
            self.fields[name] = ""
            if tag == "textarea":
                self._texts.add(name)
        elif tag == "option" and self._open and ("selected" in given or self._first):
            self.fields[self._open], self._first = value, False

    def handle_data(self, data: str) -> None:
        if self._open in self._texts:
            self.fields[self._open] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("textarea", "select"):
            self._open = None


@pytest.fixture
def page(site: Site) -> Any:
    """A browser in which ada is signed in."""
    with site.sign_in("ada") as client:
        yield client


def make(ada: psycopg.Connection, name: str, **columns: Any) -> int:
    given = {"name": name, "command": "select 'old'"} | columns
    names, marks = ", ".join(given), ", ".join(["%s"] * len(given))
    row = ada.execute(
        f"insert into rowcron.job ({names}) values ({marks}) returning id".encode(),
        list(given.values()),
    ).fetchone()
    assert row is not None
    return int(row[0])


def command(ada: psycopg.Connection, job: int) -> str:
    row = ada.execute("select command from rowcron.job where id = %s", [job]).fetchone()
    assert row is not None
    return str(row[0])


def test_a_form_that_is_shown_again_is_still_of_the_version_that_was_loaded(
    page: httpx.Client, ada: psycopg.Connection, bearer: Bearer
) -> None:
    """A mistake, mended, must not carry the old columns over what a colleague has stored."""
    job = make(ada, "edited by two")
    path = f"/jobs/{job}/edit"
    shown = Form(page.get(path).text)
    mistaken = page.post(path, data=shown.fields | {"args": "{"})
    assert mistaken.status_code == 422
    answer = bearer("ada").patch(
        f"/api/jobs/{job}", json={"command": "select 'new'"}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200
    for fields in ({"args": "{"}, {"args": "{}"}, {}, {"version": "x"}, {"version": ""}):
        given = shown.fields | {"command": "select 'mine'"} | fields
        for _ in range(2):  # Save, and Save again
            answer = page.post(path, data=given)
            assert answer.status_code == 412, answer.text
            again = Form(answer.text)
            assert again.fields["command"] == "select 'mine'", "nothing typed is lost"
            assert {f"/jobs/{job}", path} <= set(again.links)
            given = again.fields
    assert command(ada, job) == "select 'new'"
    fresh = Form(page.get(path).text)
    assert page.post(path, data=fresh.fields | {"command": "select 'mine'"}).status_code == 303
    assert command(ada, job) == "select 'mine'"


def test_what_is_not_touched_stays_as_it_is(page: httpx.Client, ada: psycopg.Connection) -> None:
    job = make(
        ada, "untouched", command="\n\nselect 1,\r\n 2", description="two\nlines",
        args='{"n": 0.1234567890123456789012, "m": 1e400, "long": %s}' % ("1" * 5000),
        retry_jitter=0.00001,
    )  # fmt: skip
    before = ada.execute(STORED, [job]).fetchone()[0]  # type: ignore[index]
    path = f"/jobs/{job}/edit"
    for change in ({}, {"queue": "other"}):
        fields = Form(page.get(path).text).fields | change
        answer = page.post(path, data=fields)
        assert answer.status_code == 303, answer.text
    after = ada.execute(STORED, [job]).fetchone()[0]  # type: ignore[index]
    assert after == before | {"queue": "other"}
    assert "0.1234567890123456789012" in page.get(f"/jobs/{job}").text, "and is shown so"


def test_a_description_keeps_its_lines_when_it_is_edited(
    page: httpx.Client, ada: psycopg.Connection
) -> None:
    job = make(ada, "of two lines", description="\none\ntwo")
    path = f"/jobs/{job}/edit"
    fields = Form(page.get(path).text).fields
    fields["description"] += "\r\nthree"
    assert page.post(path, data=fields).status_code == 303
    row = ada.execute("select description from rowcron.job where id = %s", [job]).fetchone()
    assert row == ("one\ntwo\nthree",)


def test_arguments_are_stored_as_they_were_typed(
    page: httpx.Client, ada: psycopg.Connection
) -> None:
    job = make(ada, "typed")
    path = f"/jobs/{job}/edit"
    fields = Form(page.get(path).text).fields
    args = '{"n": 0.1234567890123456789012, "m": 10e399}'
    answer = page.post(path, data=fields | {"args": args, "retry_jitter": "1e-05"})
    assert answer.status_code == 303, answer.text
    row = ada.execute(
        "select args = %s::jsonb, retry_jitter from rowcron.job where id = %s", [args, job]
    ).fetchone()
    assert row == (True, 0.00001)
    for wrong in ("NaN", '{"a": Infinity}', "{", '{}, "name": "x"', "[" * 100_000):
        fields = Form(page.get(path).text).fields
        answer = page.post(path, data=fields | {"args": wrong})
        assert (answer.status_code, "not JSON" in answer.text) == (422, True), wrong[:20]


def test_a_run_with_numbers_beyond_python_s_is_shown_and_listed(
    page: httpx.Client, ada: psycopg.Connection, bearer: Bearer
) -> None:
    args = '{"n": %s}' % ("7" * 5000)
    make(ada, "beyond")
    query = "select rowcron.run_now('beyond', %(x)s), rowcron.run_now('beyond', %(x)s)"
    row = ada.execute(query, {"x": args}).fetchone()
    assert row is not None
    assert "7" * 5000 in page.get(f"/runs/{row[0]}").text
    listed = bearer("ada").get("/api/runs", params={"limit": 1, "job": "beyond"})
    assert listed.status_code == 200
    assert '"next": "' in listed.text


def test_a_job_of_a_further_kind_keeps_it(
    page: httpx.Client, ada: psycopg.Connection, root: psycopg.Connection
) -> None:
    """An installation may have kinds of its own, and may have given one up since."""
    usual = root.execute("select value::text from rowcron.setting where name = 'kinds'").fetchone()
    assert usual is not None
    set_kinds = "update rowcron.setting set value = %s where name = 'kinds'"
    try:
        root.execute(set_kinds, ['["mail", "sql"]'])
        job = make(ada, "of a further kind", kind="mail")
        path = f"/jobs/{job}/edit"
        answer = page.post(path, data=Form(page.get(path).text).fields | {"queue": "other"})
        assert answer.status_code == 303, answer.text
        assert "mail" in page.get("/jobs/new").text, "a new one may have it"
        assert Form(page.get("/jobs/new").text).fields["kind"] == "sql", "but has the usual"
        root.execute(set_kinds, usual)
        assert Form(page.get(path).text).fields["kind"] == "mail", "until somebody changes it"
    finally:
        root.execute(set_kinds, usual)
    row = ada.execute("select kind, queue from rowcron.job where id = %s", [job]).fetchone()
    assert row == ("mail", "other")
