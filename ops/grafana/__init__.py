"""The Grafana dashboards, written as small objects and rendered to JSON."""
