"""What an HTTP API over the runtime needs: problem details, request ids, event streams."""
