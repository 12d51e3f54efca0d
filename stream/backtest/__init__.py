"""The whole system on a log, in one process and without Kafka: each event is first predicted, then learnt."""
