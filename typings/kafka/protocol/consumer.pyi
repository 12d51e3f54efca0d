from enum import IntEnum

class OffsetSpec(IntEnum):
    LATEST = -1
    EARLIEST = -2
