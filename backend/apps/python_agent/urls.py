"""Pages and API of the example."""

from django.contrib.auth.views import LogoutView
from django.urls import path, register_converter

from backend.apps.python_agent import django_go_example as api
from backend.apps.python_agent import pages


class StateKeyConverter:
    """Any key of the shared state: slashes and line ends are part of it."""

    regex = r"(?s:.+)"

    def to_python(self, value: str) -> str:
        """The key as it stands in the path."""
        return value

    def to_url(self, value: str) -> str:
        """The key, for `reverse` to quote."""
        return value


register_converter(StateKeyConverter, "state_key")

urlpatterns = [
    path("about/", pages.AboutPage.as_view(), name="about"),
    path("demo/", pages.DemoPage.as_view(), name="demo"),
    path("login/", pages.LoginPage.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("api/tasks/", api.TaskListView.as_view(), name="task-list"),
    path("api/agents/", api.AgentListView.as_view(), name="agent-list"),
    path("api/agents/<str:agent_id>/tasks/", api.AgentTaskView.as_view(), name="agent-task"),
    path("api/state/", api.StateListView.as_view(), name="state-list"),
    path("api/state/<state_key:key>", api.StateEntryView.as_view(), name="state-entry"),
    path("api/events/", api.EventListView.as_view(), name="event-list"),
    path("api/events/stream/", api.EventStreamView.as_view(), name="event-stream"),
]
