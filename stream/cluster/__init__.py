"""The Kafka cluster as Freshet needs it: what is checked, which rights are needed, and how partitions are grown."""
