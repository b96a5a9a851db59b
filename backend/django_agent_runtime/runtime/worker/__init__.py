"""The process that executes agents written in Python: what `manage.py runagent` starts.

`Worker` serves agents on an event loop; `Connection` is its stream to the runtime, on threads of its own;
`Ledger` is what both know of the runs that are held; `Attempt` executes one run; `Supervisor` keeps processes going.
"""
