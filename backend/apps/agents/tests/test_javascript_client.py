"""The JavaScript client, as it is built, against a served site with the real runtime and a worker."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from backend.apps.agents.tests.servers import ROOT, Accounts, serve
from django_agent_runtime.runtime.interfaces import EventType

if TYPE_CHECKING:
    from pathlib import Path

SHOW_INTERNAL_EVENTS = """
from django.contrib.auth.models import Permission, User
User.objects.get(username="ada").user_permissions.add(Permission.objects.get(codename="view_internal_events"))
"""


# The first time, what the client is built with is installed.
@pytest.mark.timeout(600)
def test_javascript_client_against_the_real_site(tmp_path: Path, accounts: Accounts) -> None:
    built = subprocess.run([ROOT / "scripts" / "clients", "--build"], check=True, stdout=subprocess.PIPE, text=True)
    node = built.stdout.strip()
    if not node:
        pytest.skip("there is no Node 20 or newer, and none could be installed")
    variables = {
        "DJANGO_SETTINGS_MODULE": "backend.apps.agents.tests.site_settings",
        # Is never there, so that `endless-agent` runs out of time.
        "ENOUGH": str(tmp_path / "enough"),
    }
    with serve("uvicorn", tmp_path, accounts, **variables) as site:
        site.runtime.start()
        site.start("runagent --noreload --grace=1")
        site.shell(SHOW_INTERNAL_EVENTS)
        of_site, of_runtime = (f"http://127.0.0.1:{port}" for port in (site.port, site.runtime.http_port))
        script = ROOT / "clients" / "js" / "build" / "tests" / "real_site.js"
        # It writes what failed.
        subprocess.run([node, script, of_site, site.tokens[0], of_runtime, *EventType], check=True, timeout=300)
