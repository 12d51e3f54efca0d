"""Servers on one machine (Apache Kafka, Prometheus, the status page), and the figures that are read from them."""
