"""The reference site as it is configured: development by default, closed when deployed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from backend.config import environment

MANAGE = [sys.executable, str(Path(__file__).resolve().parents[2] / "manage.py")]


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GO_RUNTIME_", "DJANGO_")) and key != "DATABASE_URL"
    }
    return subprocess.run([*MANAGE, *arguments], env=kept | variables, capture_output=True, text=True, check=False)


def test_deployed_site_passes_every_deployment_check() -> None:
    done = manage(
        *("check", "--deploy", "--fail-level", "WARNING"),
        DJANGO_DEBUG="0",
        DJANGO_SECRET_KEY="f2Qm" + "x9!kPz7@" * 10,
        DJANGO_ALLOWED_HOSTS="bridge.example.com",
    )
    assert done.returncode == 0, done.stderr


def test_deployed_site_does_not_start_on_a_known_key() -> None:
    done = manage("check", DJANGO_DEBUG="0")
    assert done.returncode != 0
    assert "DJANGO_SECRET_KEY" in done.stderr


def test_bad_environment_is_one_sentence_of_a_command() -> None:
    done = manage("migrate", DATABASE_URL="mysql://db/bridge")
    assert done.returncode == 1
    assert done.stderr == "manage.py: DATABASE_URL must begin with postgresql:// or sqlite:///, not 'mysql'.\n"
    assert "Traceback" in manage("migrate", "--traceback", DATABASE_URL="mysql://db/bridge").stderr


def test_bad_runtime_settings_keep_a_command_from_starting() -> None:
    bad = {"PORT": "fifty", "SOCKET": "run/x.sock", "TOKEN": "a b", "NAMESPACE": "Shop"}
    done = manage("migrate", "--check", **{f"GO_RUNTIME_{key}": value for key, value in bad.items()})
    assert done.returncode != 0
    for code in ("E002", "E006", "E007", "E009"):
        assert f"django_agent_runtime.{code}" in done.stderr
    assert done.stderr.count("HINT") == len(bad)


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_runtime_setting_is_the_defaults_with_the_environment_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HOST", "PORT", "SOCKET", "TOKEN", "NAMESPACE"):
        monkeypatch.delenv(f"GO_RUNTIME_{key}", raising=False)
    defaults = {
        "host": "localhost",
        "port": 50051,
        "timeout": 30,
        "reconnection_attempts": 5,
        "reconnection_delay": 5,
    }
    assert environment.read_go_runtime() == defaults
    monkeypatch.setenv("GO_RUNTIME_PORT", "50052")
    monkeypatch.setenv("GO_RUNTIME_SOCKET", "/run/agent-runtime.sock")
    monkeypatch.setenv("GO_RUNTIME_TOKEN", "")
    assert environment.read_go_runtime() == defaults | {"port": 50052, "socket": "/run/agent-runtime.sock"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", {"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/var/db.sqlite3"}),
        ("sqlite:////srv/site.sqlite3", {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/site.sqlite3"}),
        (
            "postgresql://ada:p%40ss@db.example.com:6432/bridge?sslmode=require",
            {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "bridge",
                "USER": "ada",
                "PASSWORD": "p@ss",
                "HOST": "db.example.com",
                "PORT": "6432",
                "OPTIONS": {"sslmode": "require"},
            },
        ),
        (
            "postgresql://db/bridge?pool=20&sslmode=require",
            {"NAME": "bridge", "OPTIONS": {"sslmode": "require", "pool": {"min_size": 1, "max_size": 20}}},
        ),
    ],
)
def test_database_is_named_by_a_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, expected: dict[str, Any]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    database = environment.read_database("DATABASE_URL", default_path=tmp_path / "var" / "db.sqlite3")
    expected["NAME"] = expected["NAME"].format(folder=tmp_path)
    assert {key: database[key] for key in expected} == expected


@pytest.mark.parametrize(
    "url",
    [
        *("mysql://db/bridge", "postgresql://db:port/bridge", "postgresql://db", "bridge"),
        *("postgresql://db/bridge?pool=many", "postgresql://db/bridge?pool=0"),
    ],
)
def test_bad_database_url_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_URL .*\.$"):
        environment.read_database("DATABASE_URL", default_path=tmp_path / "db.sqlite3")


def test_postgresql_without_its_driver_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    # None stands for a module that cannot be imported.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['psycopg'] = sys.modules['psycopg2'] = None\n")
    done = manage("migrate", DATABASE_URL="postgresql://db/bridge", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    [sentence] = done.stderr.splitlines()
    assert "DATABASE_URL names a PostgreSQL database" in sentence
    assert "pip install 'psycopg[binary]" in sentence


@pytest.mark.parametrize(("word", "expected"), [("1", True), ("On", True), ("no", False), ("", True)])
def test_yes_and_no_have_many_words(monkeypatch: pytest.MonkeyPatch, word: str, *, expected: bool) -> None:
    monkeypatch.setenv("DJANGO_DEBUG", word)
    assert environment.read_bool("DJANGO_DEBUG", default=True) is expected


def test_word_that_is_neither_yes_nor_no_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_DEBUG", "maybe")
    with pytest.raises(ImproperlyConfigured, match="maybe"):
        environment.read_bool("DJANGO_DEBUG", default=True)


def test_list_is_parted_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ALLOWED_HOSTS", " a.example.com, b.example.com,")
    assert environment.read_list("DJANGO_ALLOWED_HOSTS", default=[]) == ["a.example.com", "b.example.com"]
    monkeypatch.setenv("DJANGO_ALLOWED_HOSTS", "")
    assert environment.read_list("DJANGO_ALLOWED_HOSTS", default=["localhost"]) == ["localhost"]
