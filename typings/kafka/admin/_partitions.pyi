from kafka.protocol.consumer import OffsetSpec as OffsetSpec
