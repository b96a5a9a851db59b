from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from django.contrib.staticfiles import finders
from django.urls import reverse

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client


@pytest.fixture
def user(django_user_model: type[User]) -> User:
    """Somebody who may sign in."""
    return django_user_model.objects.create_user("ada", password="correct horse")


def read(client: Client, path: str) -> str:
    """A page, whose scripts and styles exist and are the site's own."""
    response = client.get(path)
    assert response.status_code == 200
    page = response.content.decode()
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith(("/", "#")), address
        if address.startswith("/static/"):
            assert finders.find(address.removeprefix("/static/")), address
    return page


def test_about_is_for_everybody_and_shows_the_state_of_the_runtime(client: Client) -> None:
    assert f'data-url="{reverse("runtime-health")}"' in read(client, "/about/")


@pytest.mark.django_db
def test_demo_asks_for_a_sign_in_and_comes_back(client: Client, user: User) -> None:
    response = client.get("/demo/")
    assert response.headers["Location"] == "/login/?next=/demo/"
    read(client, "/login/?next=/demo/")
    signed_in = client.post("/login/", {"username": "ada", "password": "correct horse", "next": "/demo/"})
    assert signed_in.headers["Location"] == "/demo/"
    page = read(client, "/demo/")
    assert f"Sign out {user.username}" in page
    for name in ("task-list", "agent-list", "state-list", "event-list", "event-stream"):
        assert f'"{reverse(name)}"' in page


@pytest.mark.django_db
@pytest.mark.usefixtures("user")
def test_wrong_password_is_said_to_be_wrong(client: Client) -> None:
    page = client.post("/login/", {"username": "ada", "password": "wrong"}).content.decode()
    assert "do not match" in page


@pytest.mark.django_db
def test_sign_out_needs_a_post(client: Client, user: User) -> None:
    client.force_login(user)
    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/").headers["Location"] == "/"


@pytest.mark.django_db
def test_only_staff_sees_the_admin_link(client: Client, user: User) -> None:
    client.force_login(user)
    assert ">Admin</a>" not in read(client, "/demo/")
    user.is_staff = True
    user.save()
    assert ">Admin</a>" in read(client, "/demo/")
