"""What an operator sees of the service: log lines, metrics, traces and errors."""

PROBES = "/healthz/"  # below it are those of app/health.py, which are no traffic: neither traced nor timed
