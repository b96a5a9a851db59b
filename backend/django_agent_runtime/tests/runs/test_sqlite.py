"""The services on SQLite as `startproject` sets it up, while others write."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Each is done while another connection, which has begun to write, goes on for a while.
SITE = """
import os, sqlite3, threading, time
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="test",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "django_agent_runtime"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"]}},
    GO_RUNTIME={"host": "127.0.0.1", "port": 1, "timeout": 1},
)
django.setup()
from django.core.management import call_command
from django.contrib.auth.models import User
from django_agent_runtime.models import AgentConversation, AgentRun
from django_agent_runtime.principals import Principal
from django_agent_runtime.services import cancel_run, delete_conversation, delete_run
call_command("migrate", verbosity=0)
ada = Principal.of_user(User.objects.create_user("ada"))

def write(writing):
    other = sqlite3.connect(os.environ["SITE_DATABASE"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE auth_user SET first_name = 'Ada'")
    writing.set()
    time.sleep(0.3)
    other.execute("COMMIT")

for act in (
    lambda conversation, run: delete_run(actor=ada, run=run),
    lambda conversation, run: delete_conversation(actor=ada, conversation=conversation),
    lambda conversation, run: cancel_run(actor=ada, run=run),
    lambda conversation, run: AgentRun.objects.filter(pk=run.pk).delete(),
    lambda conversation, run: AgentConversation.objects.all().delete(),
    lambda conversation, run: run.delete(),
    lambda conversation, run: conversation.delete(),
):
    conversation = AgentConversation.objects.create(user=ada.user)
    run = AgentRun.objects.create(user=ada.user, conversation=conversation, agent_key="a")
    writing = threading.Event()
    writer = threading.Thread(target=write, args=(writing,))
    writer.start()
    writing.wait()
    act(conversation, run)
    writer.join()
print("done", AgentRun.objects.count())
"""


def test_who_writes_while_another_does_waits(tmp_path: Path) -> None:
    environment = os.environ | {"SITE_DATABASE": str(tmp_path / "db.sqlite3")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run([sys.executable, "-c", SITE], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "done 0\n", done.stderr
