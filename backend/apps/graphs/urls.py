"""Addresses of the pages of graphs."""

from django.urls import path

from backend.apps.graphs import pages

urlpatterns = [
    path("graphs/", pages.GraphsPage.as_view(), name="graphs"),
    path("graphs/<slug:name>/", pages.GraphPage.as_view(), name="graph"),
]
