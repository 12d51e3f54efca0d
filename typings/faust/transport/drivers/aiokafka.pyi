from aiokafka.producer.producer import AIOKafkaProducer as AIOKafkaProducer

class Producer:
    def _ensure_producer(self) -> AIOKafkaProducer: ...
