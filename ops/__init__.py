"""Operation and monitoring of Freshet. This package uses neither histories nor models nor topics.

`metrics` is the catalogue of exported metrics, built with `instruments` and `labels`; `server` exports them.
`monitor` leads from counted events to decisions, `local` runs servers on one machine, and `grafana` has the dashboards.
`alerts.yml` and `runbook.md` are for operators.
"""
