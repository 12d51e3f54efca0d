"""The calls of kafka-python 3.0 that Freshet makes, and the private attributes that `stream.clients` uses."""

from kafka.consumer.group import KafkaConsumer as KafkaConsumer
from kafka.consumer.subscription_state import ConsumerRebalanceListener as ConsumerRebalanceListener
from kafka.producer.kafka import KafkaProducer as KafkaProducer
from kafka.structs import TopicPartition as TopicPartition
