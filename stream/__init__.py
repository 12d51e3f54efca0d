"""Kafka, Faust, the processes and the command line: the only folder that knows `state`, `model` and `ops`."""
