"""Writes the dashboards: `python -m ops.grafana`."""

from ops.grafana.panels import DASHBOARDS
from ops.grafana.render import write

if __name__ == "__main__":
    write(DASHBOARDS)
