"""Dashboards for Grafana, and alert rules for Prometheus. The JSON files are written by `python -m dashboards.make`."""
