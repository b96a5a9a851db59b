"""Test code that uses the runtime: with a fake in this process, or with the real binary.

    from django.test import override_settings
    from django_agent_runtime.testing import FakeGoRuntime

    with FakeGoRuntime() as runtime, override_settings(GO_RUNTIME=runtime.settings):
        ...  # get_go_runtime_integration() talks to the fake

`FakeGoRuntime` is a real gRPC server with an in-memory fake behind it, and `GoRuntimeProcess`
the real binary on free ports. `django_agent_runtime.testing.fixtures` has both for pytest.

`run_agent_locally` runs an agent's own code with no runtime at all, for tests of what it emits and returns.

A service that hands work to the runtime with `transaction.on_commit` does nothing inside a
`TestCase`, whose transaction never commits. Wrap the call, and the callbacks run at the end
of the block, against the fake:

    with self.captureOnCommitCallbacks(execute=True):
        create_order(...)

pytest-django has the same as the fixture `django_capture_on_commit_callbacks`.
"""

from django_agent_runtime.testing._run_log import FakeRun
from django_agent_runtime.testing.agents import LocalRun, arun_agent_locally, run_agent_locally
from django_agent_runtime.testing.fake import AcceptedRun, FakeGoRuntime, PublishedEvent
from django_agent_runtime.testing.process import GoRuntimeProcess, free_ports

__all__ = [
    "AcceptedRun",
    "FakeGoRuntime",
    "FakeRun",
    "GoRuntimeProcess",
    "LocalRun",
    "PublishedEvent",
    "arun_agent_locally",
    "free_ports",
    "run_agent_locally",
]
