"""The Kafka cluster: checks of its setup, the rights that processes need, and an increase of the partitions."""
