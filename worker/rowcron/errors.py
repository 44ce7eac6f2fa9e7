"""What the database says when it refuses, as Python exceptions.

`BY_SQLSTATE` is the one place that maps codes to exceptions; messages are never looked at. Every
exception carries `message`, `detail`, `hint` and `code` (the SQLSTATE, None if there is none).
"""

from __future__ import annotations

from typing import ClassVar

import psycopg

INSTALL = "rowcron install"


class RowcronError(Exception):
    """An error with what to do about it. ``hint`` is the next action, ideally text to paste."""

    code: str | None = None
    usual_message: ClassVar[str | None] = None
    usual_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: str | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        self.message = message or self.usual_message or type(self).__name__
        self.detail = detail
        self.hint = hint or self.usual_hint
        self.code = code or self.code
        super().__init__(self.message)


class BadSettings(RowcronError):
    """An option that cannot be."""


class Refused(RowcronError):
    """The database refused what was asked: a rule of rowcron or of PostgreSQL."""


class BadSchedule(Refused):
    """RCSCH: the schedule cannot be read."""


class BadTimeZone(Refused):
    """RCTZN: no IANA time zone of that name."""


class BadKind(Refused):
    """RCKND: no such kind, or it does not fit the rest of the job."""


class BadName(Refused):
    """RCNAM: a name that may not be."""


class BadLimit(Refused):
    """RCLIM: a number or interval out of range."""


class BadCommand(Refused):
    """RCCMD: a command or arguments that cannot work."""


class OwnerNotAllowed(Refused):
    """RCOWN: not yours, or not for your role."""


class NoSuchJob(Refused):
    """RCNOJ: no job of that name that you may see."""


class NoSuchRun(Refused):
    """RCNOR: no run of that number that you may see."""


class ClaimLost(Refused):
    """RCCLM: the run is no longer held under this token; what is said about it counts no more."""


class WorkerLost(Refused):
    """RCWRK: the database has declared this worker lost and handed its runs out."""


class WrongIsolation(Refused):
    """RCISO: claimed in a transaction whose snapshot is older than its statement."""


class Held(Refused):
    """RCHLD: everything is held."""


class WrongVersion(Refused):
    """RCVER: worker, schema or server are too far apart."""


class EndlessTriggers(Refused):
    """RCDEF: deferred triggers queue more deferred triggers without end."""


class ConnectionNotGranted(Refused):
    """RCCON: the job may not use that connection."""


class SecretNotGranted(Refused):
    """RCSEC: the job may not name that secret."""


class NoSuchToken(Refused):
    """RCTOK: no token of that number of yours."""


class BadKey(Refused):
    """RCKEY: a key that may not be."""


class ExecutorTrouble(Refused):
    """RCEXE: the owner's executor is missing or not what it should be."""


class NotInstalled(RowcronError):
    """The schema is missing, or older than this program."""

    usual_message = "rowcron is not installed in this database"
    usual_hint = INSTALL


class NotPermitted(Refused):
    """42501: the role that is connected may not do this."""


class Unavailable(RowcronError):
    """The database cannot be reached or cannot work now. Worth trying again.

    `in_doubt`: the connection was cut while a statement was under way; it may have been carried
    out.
    """

    in_doubt = False


BY_SQLSTATE: dict[str, type[RowcronError]] = {
    "RCSCH": BadSchedule,
    "RCTZN": BadTimeZone,
    "RCKND": BadKind,
    "RCNAM": BadName,
    "RCLIM": BadLimit,
    "RCCMD": BadCommand,
    "RCOWN": OwnerNotAllowed,
    "RCNOJ": NoSuchJob,
    "RCNOR": NoSuchRun,
    "RCCLM": ClaimLost,
    "RCWRK": WorkerLost,
    "RCISO": WrongIsolation,
    "RCHLD": Held,
    "RCVER": WrongVersion,
    "RCDEF": EndlessTriggers,
    "RCCON": ConnectionNotGranted,
    "RCSEC": SecretNotGranted,
    "RCKEY": BadKey,
    "RCTOK": NoSuchToken,
    "RCEXE": ExecutorTrouble,
    "3F000": NotInstalled,  # invalid_schema_name
    "42883": NotInstalled,  # undefined_function
    "42P01": NotInstalled,  # undefined_table
    "42501": NotPermitted,  # insufficient_privilege
    "25006": Unavailable,  # read_only_sql_transaction: a standby, or a primary that became one
    "40001": Unavailable,  # serialization_failure
    "40P01": Unavailable,  # deadlock_detected
    "55P03": Unavailable,  # lock_not_available
    "57014": Unavailable,  # query_canceled, which nobody asked for here
    "57P01": Unavailable,  # admin_shutdown
    "57P02": Unavailable,  # crash_shutdown
    "57P03": Unavailable,  # cannot_connect_now
    "57P05": Unavailable,  # idle_session_timeout
    "25P03": Unavailable,  # idle_in_transaction_session_timeout
    "25P04": Unavailable,  # transaction_timeout
}
# Whole classes: connection exceptions, insufficient resources, system errors.
UNAVAILABLE_CLASSES = frozenset({"08", "53", "58"})
# What says that a value cannot be stored as it is: data exceptions, program limits.
DATA_CLASSES = frozenset({"22", "54"})


def translate(error: BaseException) -> RowcronError:
    """Return `error` as one of this module's exceptions, by its SQLSTATE alone."""
    if isinstance(error, RowcronError):
        return error
    if not isinstance(error, psycopg.Error):
        return RowcronError(str(error) or type(error).__name__)
    code = error.sqlstate
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    detail, hint = error.diag.message_detail, error.diag.message_hint
    if code is None:
        if isinstance(error, psycopg.OperationalError):
            return Unavailable(first_line(message), detail=detail, hint=hint)
        return RowcronError(message, detail=detail, hint=hint)
    kind = BY_SQLSTATE.get(code)
    if kind is NotInstalled:
        return NotInstalled(detail=message, code=code)
    if kind is None and code[:2] in UNAVAILABLE_CLASSES:
        kind = Unavailable
    return (kind or Refused)(message, detail=detail, hint=hint, code=code)


def is_about_data(error: RowcronError) -> bool:
    """Return whether the values are to blame; without a code they could not even be sent."""
    if isinstance(error, Unavailable | NotInstalled):
        return False
    return error.code is None or error.code[:2] in DATA_CLASSES


def first_line(text: str) -> str:
    """Return the first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), text)
