"""The commands `goruntime` and `goruntime_status`."""
