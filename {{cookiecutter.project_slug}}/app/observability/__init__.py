"""What an operator sees of the service: log lines and metrics."""
