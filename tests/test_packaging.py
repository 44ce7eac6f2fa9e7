"""What a release uploads: an sdist, the wheel built from it, and a schema installed from that."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import psycopg
import pytest

from harness import INSTALLER, ROOT, TEMPLATE, Database, TestServer
from rowcron import __version__, chapters

pytestmark = pytest.mark.once


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: str = done.stdout
    return said


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this tree, and the wheel built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel and what it declares that it needs, nothing else."""
    home = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", home)
    run(home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", built[1])
    return home / "bin" / "python"


def test_sdist_and_wheel_carry_every_chapter(built: tuple[Path, Path]) -> None:
    names = {chapter.name for chapter in chapters.chapters()}
    assert len(names) > 10
    with tarfile.open(built[0]) as sdist:
        inside = {Path(name).relative_to(f"rowcron-{__version__}") for name in sdist.getnames()}
    assert {path.name for path in inside if path.parent == Path("sql")} >= names
    assert Path("sql_tests") in {path.parent for path in inside}
    with zipfile.ZipFile(built[1]) as wheel:
        files = set(wheel.namelist())
    assert {name for name in files if name.startswith("rowcron/sql/")} == {
        f"rowcron/sql/{name}" for name in names
    }
    assert {
        "rowcron/py.typed",
        "rowcron/web/static/app.js",
        "rowcron/web/templates/now.html",
    } <= files
    assert not [name for name in files if name.startswith(("tests", "worker", "sql/"))]


def test_the_wheel_s_metadata_is_right(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        info = f"rowcron-{__version__}.dist-info"
        metadata = wheel.read(f"{info}/METADATA").decode()
        entries = wheel.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "License-Expression: PostgreSQL" in metadata
    assert "rowcron = rowcron.cli:main" in entries
    for kind in ("sql", "shell", "http", "python"):
        assert f"{kind} = rowcron.executors.{kind}:Executor" in entries


def test_the_installed_wheel_installs_the_same_schema(
    server: TestServer, empty_database: Database, python: Path
) -> None:
    where = run(python, "-c", "import rowcron; print(rowcron.__file__)", cwd="/").strip()
    assert Path(where).is_relative_to(python.parent.parent)
    url = empty_database.url(INSTALLER)
    run(python.parent / "rowcron", "install", "--database-url", url, cwd="/")
    assert server.dump_schema(empty_database.name) == server.dump_schema(TEMPLATE)
    with psycopg.connect(empty_database.url("postgres")) as conn:
        assert conn.execute("select rowcron.version()").fetchone() == (__version__,)


def test_the_installed_wheel_prints_the_same_script(python: Path) -> None:
    printed = run(python.parent / "rowcron", "install", "--print", cwd="/")
    assert printed.strip() == chapters.script().strip()


def test_without_its_extra_rowcron_web_says_what_to_install(python: Path) -> None:
    command = [str(python.parent / "rowcron"), "web", "--database-url", "postgresql://x@h/x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert "pip install 'rowcron[web]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_entry_points_load(python: Path) -> None:
    program = (
        "from importlib.metadata import entry_points\n"
        "for entry in entry_points(group='rowcron.executors'): entry.load()\n"
        "print(sorted(entry.name for entry in entry_points(group='rowcron.executors')))"
    )
    assert run(python, "-c", program, cwd="/").strip() == "['http', 'python', 'shell', 'sql']"
