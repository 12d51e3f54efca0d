"""The Grafana dashboards, written as small values and rendered to JSON."""
