"""Servers on one machine: Apache Kafka, Prometheus, the status page, and what they are asked."""
