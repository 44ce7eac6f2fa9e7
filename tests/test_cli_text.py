"""What is printed is safe, measured in cells and fits; schedules are judged without a database."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from rowcron import output, text
from rowcron.cli import cli
from rowcron.crontab_check import check_lines, split_line
from rowcron.preview import BadSchedule, next_runs

pytestmark = pytest.mark.once
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 3, 27, 12, tzinfo=UTC)  # two days before Berlin's clocks go forward


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("Ärger 東京 🎉", "Ärger 東京 🎉"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("abc\u202edcba", "abc\\u202edcba"),
    ],
)
def test_control_characters_are_made_visible(given: str, shown: str) -> None:
    assert text.safe(given) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert text.safe("a\n\x1bb", keep="\n") == "a\n\\x1bb"


def test_wide_characters_count_two_cells_and_marks_none() -> None:
    assert text.width("東京") == 4
    assert text.width("e\u0301") == 1
    assert text.shorten("東京都庁", 5) == "東京…"
    assert text.width(text.shorten("a" * 50, 10)) == 10


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.004, "4 ms"),
        (0.9996, "1 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_lengths_of_time_are_short(seconds: float, shown: str) -> None:
    assert text.span(timedelta(seconds=seconds)) == shown


def test_json_is_ascii_and_instants_are_in_utc() -> None:
    at = datetime(2026, 11, 24, 3, tzinfo=BERLIN)
    written = text.dumps({"at": at, "name": "ä\x1b\x7f"})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {"at": "2026-11-24T02:00:00+00:00", "name": "ä\x1b\x7f"}


def test_a_table_fits_and_drops_what_matters_least(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = (
        output.Column("name", "NAME", least=8),
        output.Column("same", "SAME", dull=True),
        output.Column("number", "NUMBER", right=True),
        output.Column("extra", "EXTRA", drop=1),
    )
    rows = [{"name": "n" * 60, "same": "s", "number": 5, "extra": "e" * 40}]
    output.table(columns, rows, empty="nothing")
    assert "n" * 60 + "  s   " in capsys.readouterr().out  # no terminal: nothing is cut
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    output.table(columns, rows, empty="nothing")
    lines = capsys.readouterr().out.splitlines()
    assert all(
        text.width(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 40 for line in lines
    )
    assert not {"e", "s"} & set(lines[1])
    assert lines[1].endswith("5")


@pytest.mark.parametrize(
    ("line", "schedule", "rest"),
    [
        ("*/5 * * * *", "*/5 * * * *", ""),
        ("0 0 3 * * mon-fri", "0 0 3 * * mon-fri", ""),
        ("0 3 * * 1 backup", "0 3 * * 1", "backup"),
        ("17 *\t* * *\troot  cd / && run", "17 * * * *", "root  cd / && run"),
        ("@daily\t/bin/x y", "@daily", "/bin/x y"),
        ("@every 90 seconds", "@every 90 seconds", ""),
    ],
)
def test_a_line_is_a_schedule_or_a_crontabs_line(line: str, schedule: str, rest: str) -> None:
    assert split_line(line) == (schedule, rest)


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        ("30 2 * * *", "2026-03-28 02:30:00+01:00"),
        ("30 2 29 3 *", "2026-03-29 03:00:00+02:00"),  # the first instant after the gap
        ("*/30 2 29 3 *", "2027-03-29 02:00:00+02:00"),  # elapsed time: there is no such one
        ("30 2 25 10 *", "2026-10-25 02:30:00+02:00"),  # the first of a doubled hour
        ("0 0 13 * fri", "2026-04-03 00:00:00+02:00"),  # two restricted day fields: either
        ("0 0 */2 * mon", "2026-04-13 00:00:00+02:00"),  # one begins with *: both
        ("0 0 * * 5L", "2026-04-24 00:00:00+02:00"),
        ("30 0 3 * * 7", "2026-03-29 03:00:30+02:00"),
        ("@at 2026-12-24 18:00", "2026-12-24 18:00:00+01:00"),
        ("@every 1 h 30 min", "2026-03-27 14:30:00+01:00"),
    ],
)
def test_previews_follow_debians_rules(schedule: str, first: str) -> None:
    assert str(next_runs(schedule, 1, after=NOON, timezone=BERLIN)[0]) == first


def test_an_elapsed_hour_that_is_doubled_runs_twice() -> None:
    after = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    found = next_runs("*/30 * * * *", 4, after=after, timezone=BERLIN)
    assert [at.strftime("%H:%M%z") for at in found] == [
        "02:00+0200",
        "02:30+0200",
        "02:00+0100",
        "02:30+0100",
    ]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("60 * * * *", 'minute "60" is not valid, allowed 0-59'),
        ("0 24 * * *", 'hour "24" is not valid, allowed 0-23'),
        ("0 0 0 * *", "day of month"),
        ("0 0 * foo *", "month"),
        ("0 0 * * 8", "day of week"),
        ("60 0 0 * * *", 'second "60"'),
        ("*/0 * * * *", "minute"),
        ("* * * *", "4 fields"),
        ("0 0 30 2 *", "never occurs"),
        ("@noon", "unknown schedule"),
        ("@every 5 parsecs", "unknown unit"),
        ("@every", "not an interval"),
        ("@at tomorrow", "not an instant"),
        ("", "fields"),
    ],
)
def test_a_bad_schedule_is_named_with_what_is_allowed(schedule: str, words: str) -> None:
    with pytest.raises(BadSchedule, match=words):
        next_runs(schedule, 1, after=NOON, timezone=BERLIN)


def test_cron_tz_counts_for_the_lines_below_it() -> None:
    lines = ["0 3 * * *", "CRON_TZ=Asia/Tokyo", "0 3 * * *", "CRON_TZ=Mars/Olympus", "0 3 * * *"]
    found = list(check_lines(lines, count=1, after=NOON))
    assert [verdict.line for verdict in found] == [1, 3, 5]
    assert [str(at) for verdict in found for at in verdict.next_runs] == [
        "2026-03-28 03:00:00+00:00",
        "2026-03-28 03:00:00+09:00",
    ]
    assert found[2].error is not None
    assert "Mars/Olympus" in found[2].error


def test_check_tells_good_from_bad_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "crontab"
    file.write_text("# comment\nMAILTO=root\n*/5 * * * * true\n61 * * * * echo \x1b[2J\n", "utf-8")
    done = CliRunner().invoke(cli, ["check", str(file)])
    assert done.exit_code == 1
    assert "   3  ok   */5 * * * *  true" in done.output
    assert "   4  bad  61 * * * *  echo \\x1b[2J" in done.output
    assert "1 good, 1 bad" in done.output
    assert "\x1b" not in done.output
    done = CliRunner().invoke(cli, ["check", "--json", str(file)])
    assert [row["ok"] for row in json.loads(done.stdout)] == [True, False]
    file.write_text("*/5 * * * * true\n", "utf-8")
    assert CliRunner().invoke(cli, ["check", str(file)]).exit_code == 0
    done = CliRunner().invoke(cli, ["check", "--format", "system", str(file)])
    assert "a user and a command" in done.output
    assert done.exit_code == 1
    file.write_text("17 *\t* * *\troot\tcd / && x\n@daily\troot  /bin/x y\n", "utf-8")
    done = CliRunner().invoke(cli, ["check", "--format", "system", "--json", str(file)])
    rows = [(row["user"], row["command"]) for row in json.loads(done.stdout)]
    assert rows == [("root", "cd / && x"), ("root", "/bin/x y")]
