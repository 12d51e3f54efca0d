"""The whole system on a log, in one process and without Kafka: every event is asked about first, then learnt."""
