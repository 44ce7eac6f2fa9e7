"""What pg_dump and pg_restore by one role or another leave, and `rowcron install` puts right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest

from harness import INSTALLER, Database, TestServer
from rowcron.install import install

Copy = Callable[..., Database]
FUNCTIONS = (
    "select p.oid::regprocedure::text, p.proowner::regrole::text, array("
    "select a::text from unnest(p.proacl) as a order by 1) from pg_proc as p"
    " where p.pronamespace = 'rowcron'::regnamespace order by 1"
)
EXECUTE = (
    "select proowner::regrole::text from pg_proc"
    " where oid = 'rowcron.execute(bigint, uuid)'::regprocedure"
)


def column(database: Database, query: str, role: str = "postgres") -> list[object]:
    """The rows of a query, each that of one column as its value."""
    with psycopg.connect(database.url(role), autocommit=True) as conn:
        return [row if len(row) > 1 else row[0] for row in conn.execute(query.encode()).fetchall()]


@pytest.fixture
def copy(database: Database, server: TestServer) -> Iterator[Copy]:
    """Restores the test's database into a new one: as whom, and with which options."""
    made: list[Database] = []

    def restore(role: str, *options: str) -> Database:
        target = server.create_database(template="template0")
        made.append(target)
        # pgTAP is in public
        dump = [str(server.bin / "pg_dump"), "-Fc", "-N", "public", "-d", database.url(role)]
        dumped = subprocess.run(dump, capture_output=True, check=False)
        assert dumped.returncode == 0, dumped.stderr.decode()
        # what it may not do it reports, and goes on
        command = [str(server.bin / "pg_restore"), *options, "-d", target.url(role)]
        subprocess.run(command, input=dumped.stdout, capture_output=True, check=False)
        return target

    yield restore
    for target in made:
        server.drop_database(target)


@pytest.mark.parametrize("role", [INSTALLER, "postgres"])
def test_what_the_installer_has_restored_is_put_right(
    database: Database, copy: Copy, role: str
) -> None:
    restored = copy(INSTALLER)
    assert column(restored, EXECUTE) == [INSTALLER], "the gate may not create there"
    assert install(restored.url(role)).changed
    assert column(restored, FUNCTIONS) == column(database, FUNCTIONS)
    assert not install(restored.url(role)).changed
    assert install(restored.url(role), force=True).changed
