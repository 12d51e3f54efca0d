"""How it is run and watched. Knows neither histories nor models nor topics.

To run: `connection`, `broker`, `prometheus`. What is exported: `metrics`, the catalogue; `exposition` reads it back.
From events to decisions: `bins`, `windows` and `signals` count, `drift` and `detectors` compare, `monitor`, `quality`
and `data_quality` judge, `decisions` acts, `watch` puts them together. Beside them `lag` and `beyond_accuracy`.
To look at: `status`, the page; `grafana` and `panels`, the dashboards; `alerts.yml` and `runbook.md`.
"""
