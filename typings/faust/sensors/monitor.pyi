from faust.types.tuples import TP

class Monitor:
    stream_inbound_time: dict[TP, float]
