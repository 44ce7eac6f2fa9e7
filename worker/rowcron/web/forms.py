"""Forms of the pages: read by hand, so that nothing but urlencoded text is taken."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl

from starlette.requests import Request

from rowcron.commands._columns import NULLABLE
from rowcron.web.actor import Record
from rowcron.web.problems import Refusal

# Fields of the form of a job, with the value that means the same as leaving it out.
FIELDS = {
    "name": "", "schedule": "", "timezone": "UTC", "kind": "sql", "command": "", "args": "",
    "description": "",
    "starts_at": "", "ends_at": "", "max_runs": "", "jitter": "", "on_gap": "", "on_fold": "",
    "on_missed": "latest", "missed_grace": "00:01:00", "max_missed": "100", "on_overlap": "skip",
    "enabled": "true", "queue": "default", "priority": "0", "timeout": "01:00:00",
    "max_running": "", "connection": "", "keep": "",
    "max_attempts": "1", "retry_delay": "00:00:10", "retry_backoff": "2",
    "max_retry_delay": "01:00:00", "retry_jitter": "0.1", "on_lost": "retry", "max_lost": "3",
}  # fmt: skip
# How the form groups what most jobs leave as it is.
GROUPS = {
    "when": ("starts_at", "ends_at", "max_runs", "jitter", "on_gap", "on_fold", "on_missed",
             "missed_grace", "max_missed", "on_overlap"),
    "how": ("enabled", "queue", "priority", "timeout", "max_running", "connection", "keep"),
    "trouble": ("max_attempts", "retry_delay", "retry_backoff", "max_retry_delay",
                "retry_jitter", "on_lost", "max_lost"),
}  # fmt: skip
_WHOLE = ("priority", "max_attempts", "max_running", "max_runs", "max_missed", "max_lost")
_NUMBERS = ("retry_backoff", "retry_jitter")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?")
_LINES = ("command", "args", "description")  # in a textarea


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form. Raises `Refusal` 415, 422."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "a form is expected")
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100, errors="strict"))
    except ValueError as error:
        raise Refusal(422, "the form cannot be read") from error


def values_of(form: dict[str, str]) -> dict[str, str]:
    """Return what was typed, for the form to be shown again."""
    return {name: _as_sent(name, form.get(name, usual)) for name, usual in FIELDS.items()}


def _as_sent(name: str, text: str) -> str:
    """Return a text as it comes back from a form in which nobody touched it."""
    if name in _LINES:
        return re.sub(r"\r\n?", "\n", text)
    return re.sub(r"[\r\n]", "", text)  # an input has one line


def changed(values: dict[str, str], job: Record) -> dict[str, str]:
    """Return the values that are not what the form of the job was shown with."""
    shown = values_from(job)
    return {name: text for name, text in values.items() if text != _as_sent(name, shown[name])}


def group_of(field: str | None) -> str:
    """Return the group in which the form shows a column; empty if it is always shown."""
    return next((group for group, names in GROUPS.items() if field in names), "")


def changed_groups(values: dict[str, str]) -> set[str]:
    """Return the groups in which something is not as most jobs leave it."""
    return {
        group
        for group, names in GROUPS.items()
        if any(values[name].strip() != FIELDS[name] for name in names)
    }


def columns_of(values: dict[str, str]) -> dict[str, str]:
    """Return the columns of a job, each as JSON text: what JSON was typed stays to the last digit.

    Raises `Refusal` 422 for what JSON and numbers cannot be.
    """
    columns: dict[str, str] = {}
    for name, value in values.items():
        given = value if name == "command" else value.strip()
        if name in NULLABLE and not given:
            columns[name] = "null"
        elif name == "args":
            columns[name] = _json(given)
        elif name in _WHOLE and not re.fullmatch(r"-?[0-9]{1,18}", given):
            raise Refusal(422, f'{name} "{given}" is not a whole number', field=name)
        elif name in _NUMBERS and not _NUMBER.fullmatch(given):
            raise Refusal(422, f'{name} "{given}" is not a number', field=name)
        else:
            columns[name] = json.dumps(given)
    return columns


def body_of(columns: dict[str, str]) -> str:
    """Return columns as one JSON object."""
    return "{{{}}}".format(", ".join(f'"{n}": {text}' for n, text in columns.items()))


def _json(text: str) -> str:
    try:
        json.loads(text, parse_float=str, parse_int=str, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise Refusal(
            422,
            "the arguments are not JSON",
            detail=str(error),
            hint='For example {"day": "monday"}, or nothing.',
            field="args",
        ) from error
    return text


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def values_from(job: Record) -> dict[str, str]:
    """Return a job's columns as the form shows them; `args_text` is the database's own text."""
    values = {name: "" if job[name] is None else str(job[name]) for name in FIELDS}
    values["enabled"] = values["enabled"].lower()
    values |= {name: values[name].removesuffix(".0") for name in _NUMBERS}
    values["args"] = job["args_text"] or ""
    return values
