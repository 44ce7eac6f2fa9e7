"""Apps that cannot be loaded say why, and what to do about it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from rowcron import handler
from rowcron.errors import RowcronError
from rowcron.handlers import HANDLERS, load_app

pytestmark = pytest.mark.once

MODULE = "--app takes a module as import does; PYTHONPATH may name its directory"
TWO = """
from rowcron import handler
@handler("apps.two")
def one(): pass
@handler("apps.two")
def two(): pass
"""
METHOD = """
from rowcron import handler
class Mailer:
    @handler
    @classmethod
    def send_mail(cls): pass
"""


def refused(name: str) -> RowcronError:
    """The error that an app's name leads to."""
    with pytest.raises(RowcronError, match="cannot be imported") as caught:
        load_app(name)
    return caught.value


@pytest.fixture
def apps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["apps_none", "apps_none.tasks:x", "./apps_none.py", ""])
def test_an_app_that_is_not_there_is_told_where_it_could_be(name: str) -> None:
    error = refused(name)
    assert error.hint == MODULE
    assert "Traceback" not in str(error.detail)


@pytest.mark.usefixtures("apps")
@pytest.mark.parametrize(
    ("name", "text", "detail", "hint"),
    [
        ("apps_imports", "import apps_none", "No module named 'apps_none'", None),
        ("apps_import", "import apps_impor", "No module named 'apps_impor'", None),
        ("apps_divides", "1 / 0", "ZeroDivisionError: division by zero", None),
        ("apps_exits", "raise SystemExit(0)", "SystemExit: 0", "imported, not run"),
        ("apps_two", TWO, "One is in apps_two, one in apps_two.", "a name of its own: @handler("),
        ("apps_method", METHOD, 'a handler cannot be of type "classmethod"', "below their class"),
    ],
)
def test_an_error_in_an_app_has_its_own_hint(
    apps: Path, name: str, text: str, detail: str, hint: str | None
) -> None:
    (apps / f"{name}.py").write_text(text, "utf-8")
    try:
        error = refused(name)
    finally:
        HANDLERS.pop("apps.two", None)
    assert detail in str(error.detail)
    assert f'{name}.py", line' in str(error.detail)
    assert (hint is None) == (error.hint is None)
    assert hint is None or hint in str(error.hint)


def test_what_cannot_be_called_is_no_handler() -> None:
    for wrong in (classmethod(print), property(print), 5):
        for register in (handler, handler("apps.wrong")):
            with pytest.raises(RowcronError, match="cannot be of type") as caught:
                register(wrong)  # type: ignore[call-overload]
            assert "@handler stands above functions" in str(caught.value.hint)
    assert "apps.wrong" not in HANDLERS


def test_what_has_no_name_is_to_be_given_one() -> None:
    with pytest.raises(RowcronError, match="cannot be a handler's name") as caught:
        handler(partial(print, "x"))
    assert caught.value.hint == 'give it one: @handler("send_mail")'
