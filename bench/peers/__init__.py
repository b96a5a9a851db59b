"""Programs that run in virtual environments of their own and show what a peer does: see `bench.peer`."""
