"""One edge to Kafka: every use of a private attribute of a client library lives here."""
