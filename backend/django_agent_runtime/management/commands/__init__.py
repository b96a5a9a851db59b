"""The commands `goruntime`, `goruntime_status` and `runagent`."""
