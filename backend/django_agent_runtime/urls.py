"""The library's own addresses: `path("health/", include("django_agent_runtime.urls"))`."""

from django.urls import path

from django_agent_runtime.health import RuntimeHealthView

urlpatterns = [
    path("runtime/", RuntimeHealthView.as_view(), name="runtime-health"),
]
