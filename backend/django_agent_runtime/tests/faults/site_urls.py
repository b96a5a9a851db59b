"""Addresses of the project whose processes the tests of this folder start: the library's own, ready-made."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("django_agent_runtime.api.urls"))]
