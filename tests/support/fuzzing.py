"""Records that nobody meant: mutations of valid ones, random bytes, extreme numbers, deep JSON, broken UTF-8."""

import json
import random
from collections.abc import Iterator

NOW = 1_700_000_000_000

_NUMBERS = (
    *("0", "-0", "-1", "1e308", "1e309", "-1e309", "1e-400", "NaN", "Infinity", "-Infinity", "3.4028236e38", "1e38"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "9" * 400),
    *("1700000000000.0", "1700000000000.5", "1.7e12", "1700000000", "0x10", "01", "true", "null", '"1700000000000"'),
)
_STRINGS = (
    *('""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\uD83D\\uDE00"', '"\U0001f600"', '"' + "x" * 513 + '"'),
    *('"' + "é" * 512 + '"', "[]", "{}", "7", "null", '"a\\/b"', '"\\x"', '"\t"'),
)
_DEEP = ("[", '{"a":', '{"user":', '[{"item":')


def _valid(rng: random.Random, user: str) -> bytes:
    event = {"user": user, "item": f"i{rng.randrange(500)}", "timestamp": NOW + rng.randrange(1_000_000)}
    if rng.random() < 0.3:
        event["weight"] = rng.choice([0, 0.5, 1, 2.5, 1e30])
    if rng.random() < 0.2:
        event["event"] = "click"
    return json.dumps(event).encode()


def _mutated(rng: random.Random, value: bytes) -> bytes:
    changed = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        place, way = rng.randrange(len(changed) + 1), rng.randrange(4)
        if way == 0:
            changed[place : place + 1] = bytes([rng.randrange(256)])
        elif way == 1:
            del changed[place : place + rng.randint(1, 10)]
        elif way == 2:
            changed[place:place] = rng.randbytes(rng.randint(1, 5))
        else:
            changed[place:place] = changed[: rng.randint(0, 20)]
    return bytes(changed)


def _extreme(rng: random.Random, user: str) -> bytes:
    fields = {"user": json.dumps(user), "item": '"i"', "timestamp": str(NOW), "weight": "1"}
    for name in rng.sample(list(fields), rng.randint(1, 2)):
        fields[name] = rng.choice(_STRINGS if name in ("user", "item") else _NUMBERS)
    if rng.random() < 0.1:
        fields |= {"event": rng.choice(_STRINGS + _NUMBERS)}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode(errors="surrogatepass")


def _deep(rng: random.Random, user: str) -> bytes:
    depth = rng.choice([10, 500, 1_500, 10_000])
    inner = rng.choice(_DEEP) * depth
    return rng.choice([inner, f'{{"user":"{user}","item":"i","timestamp":{NOW},"more":{inner}']).encode()


def fuzzed(rng: random.Random, count: int) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Keys and values; never both null, which no client sends."""
    for _ in range(count):
        user = f"u{rng.randrange(300)}"
        key: bytes | None = user.encode()
        kind = rng.random()
        value: bytes | None
        if kind < 0.4:
            value = _valid(rng, user)
        elif kind < 0.7:
            value = _mutated(rng, _valid(rng, user))
        elif kind < 0.85:
            value = _extreme(rng, user)
        elif kind < 0.98:
            value = rng.randbytes(rng.randrange(120))
        elif kind < 0.985:
            value = _deep(rng, user)
        else:
            value = None
        if rng.random() < 0.03:
            key = rng.choice([None, b"", b"\xff\xfe", rng.randbytes(6), b"x" * 600])
            value = value or b""
        yield key, value
