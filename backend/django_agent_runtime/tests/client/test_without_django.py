from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess

PROGRAM = """
import sys
sys.modules["django"] = None
import os
from django_agent_runtime.go_integration import GoRuntimeIntegration
assert os.listdir("/proc/self/task") == [str(os.getpid())], "the import starts no thread"
client = GoRuntimeIntegration(host=sys.argv[1], port=int(sys.argv[2]))
assert os.listdir("/proc/self/task") == [str(os.getpid())], "a client starts no thread before its first call"
with client:
    client.set_state("plain", {"a": 1})
    print(client.get_state("plain"), client.execute_task("example_task", {"b": 2})["input"])
"""


def test_the_client_works_where_django_is_not_installed(go_runtime_process: GoRuntimeProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, go_runtime_process.host, str(go_runtime_process.port)],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
    )
    assert done.stdout == "{'a': 1} {'b': 2}\n", done.stderr
