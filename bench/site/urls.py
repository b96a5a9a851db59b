"""Addresses of the reference site, and of the view that runs are held against."""

from django.urls import include, path

from bench.site.api import RowView

urlpatterns = [
    path("row/", RowView.as_view()),
    path("", include("backend.config.urls")),
]
