"""Every dialect of an interaction log reads as the same events, in time order; rows that make no sense are counted."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stream.sources.log.account import Account
from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.reader import read_log
from stream.wire.records import Interaction

SECONDS = [881250949, 891717742, 878887116, 880606923, 880606923]
ROWS = [("196", "242", 3.0), ("186", "302", 3.0), ("22", "377", 1.0), ("244", "51", 2.0), ("166", "346", 5.0)]
IN_TIME_ORDER = [2, 3, 4, 0, 1]  # rows 3 and 4 share their second and keep their order
EXPECTED = [Interaction(*ROWS[row][:2], timestamp=SECONDS[row] * 1000) for row in IN_TIME_ORDER]

DIALECTS = {
    "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    + "".join(f"{u}\t{i}\t{r}\t{t}\n" for (u, i, r), t in zip(ROWS, SECONDS, strict=True)),
    "u.data": "".join(f"{u}\t{i}\t{r:.0f}\t{t}\n" for (u, i, r), t in zip(ROWS, SECONDS, strict=True)),
    "ratings.dat": "".join(f"{u}::{i}::{r:.0f}::{t}\n" for (u, i, r), t in zip(ROWS, SECONDS, strict=True)),
    "ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{u},{i},{r},{t}\n" for (u, i, r), t in zip(ROWS, SECONDS, strict=True)),
    "bare.csv": "".join(f"{u},{i},{t}\n" for (u, i, _), t in zip(ROWS, SECONDS, strict=True)),
    "quoted.csv": '"item","user","time"\r\n'
    + "".join(f'"{i}","{u}",{t}000\r\n' for (u, i, _), t in zip(ROWS, SECONDS, strict=True)),
    "moments.csv": "user;item;date\n"
    + "".join(f"{u};{i};{np.datetime64(t, 's')}Z\n" for (u, i, _), t in zip(ROWS, SECONDS, strict=True)),
    "log.jsonl": "".join(
        json.dumps({"extra": [1], "user": u, "item": int(i), "timestamp": t}) + "\n"
        for (u, i, _), t in zip(ROWS, SECONDS, strict=True)
    ),
}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(path: Path, options: LogOptions | None = None) -> tuple[list[Interaction], Account]:
    with read_log(path, options) as log:
        found = list(log.interactions())
        assert len(found) == len(log)
        return found, log.account


def events(path: Path, options: LogOptions | None = None) -> list[Interaction]:
    return read(path, options)[0]


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_events(tmp_path: Path, name: str) -> None:
    found, account = read(write(tmp_path, name, DIALECTS[name]))
    assert found == EXPECTED
    assert (account.rows, account.malformed, account.below_minimum) == (5, 0, 0)
    assert events(write(tmp_path, name + ".gz", gzip.compress(DIALECTS[name].encode()))) == EXPECTED


@pytest.mark.parametrize("times", ["int64", "float64", "timestamp[us, tz=UTC]", "date-like strings"])
def test_parquet_with_typed_columns(tmp_path: Path, times: str) -> None:
    table = {"user_id": pa.array([int(u) for u, _, _ in ROWS]), "item_id": pa.array([i for _, i, _ in ROWS])}
    moments = np.array(SECONDS, dtype="datetime64[s]")
    if times.startswith("timestamp"):
        table["timestamp"] = pa.array(moments.astype("datetime64[us]")).cast(pa.timestamp("us", "UTC"))
    elif times == "date-like strings":
        table["timestamp"] = pa.array([f"{m} +0000".replace(" ", "") for m in moments])
    else:
        table["timestamp"] = pa.array(SECONDS).cast(times)
    path = tmp_path / "log.parquet"
    parquet.write_table(pa.table(table), path)
    assert events(path) == EXPECTED


def test_columns_are_chosen_by_name_or_by_position(tmp_path: Path) -> None:
    named = write(tmp_path, "shop.csv", "who,what,when,amount,kind\nann,pen,1700000000123,2.5,buy\n")
    columns = LogOptions(user="who", item="what", timestamp="when", weight="amount", event="kind")
    expected = [Interaction("ann", "pen", 1700000000123, 2.5, "buy")]
    assert events(named, columns) == expected
    bare = write(tmp_path, "bare.csv", "2.5,buy,1700000000123,pen,ann\n")
    assert events(bare, LogOptions(user=4, item=3, timestamp=2, weight=0, event=1)) == expected


def test_only_ratings_of_at_least_the_minimum_stay(tmp_path: Path) -> None:
    found, account = read(write(tmp_path, "u.data", DIALECTS["u.data"]), LogOptions(min_rating=3))
    assert [event.user for event in found] == ["166", "196", "186"]
    assert account.below_minimum == 2


def test_malformed_rows_are_counted_with_examples_and_left_out(tmp_path: Path) -> None:
    text = b"""user,item,rating,timestamp
a,x,5,1700000000
b,y,5
,y,5,1700000000
c,y,5,yesterday
d,\xff\xfe,5,1700000000
e,y,five,1700000000
f,y,5,nan
g,y,5,1e300

h,z,4.5,1700000001
"""
    found, account = read(write(tmp_path, "log.csv", text), LogOptions(min_rating=4))
    assert found == [Interaction("a", "x", 1700000000000), Interaction("h", "z", 1700000001000)]
    assert (account.rows, account.malformed, account.below_minimum) == (9, 7, 0)
    assert account.examples == (
        "line 4: no user",
        "line 5: no time: yesterday",
        "line 6: not UTF-8, perhaps --encoding latin-1",
        "line 7: no rating",
        "line 8: no time: nan",
    )


def test_a_row_of_other_length_is_an_example_too(tmp_path: Path) -> None:
    _, account = read(write(tmp_path, "log.csv", "user,item,timestamp\na,x,1700000000\nb,y\n"))
    assert account.malformed == 1 and account.examples == ("2 columns instead of 3: 'b,y'",)


def test_malformed_json_lines_are_counted(tmp_path: Path) -> None:
    lines = [
        '{"user": "a", "item": "x", "timestamp": 1700000000}',
        "not json",
        "[1, 2]",
        '{"user": {"id": 1}, "item": "x", "timestamp": 1700000000}',
        '{"user": "b", "timestamp": 1700000000}',
    ]
    found, account = read(write(tmp_path, "log.jsonl", "\n".join(lines)))
    assert [event.user for event in found] == ["a"]
    assert (account.rows, account.malformed) == (5, 4)


@pytest.mark.parametrize(
    ("name", "text", "options", "hint"),
    [
        ("a.csv", "alpha,beta,gamma\n1,2,3\n", LogOptions(), "which column is user"),
        ("a.csv", "user,item,timestamp\n1,2,3\n", LogOptions(item="film"), "no column 'film' for item"),
        ("a.csv", "one column\n", LogOptions(), "delimiter"),
        ("a.csv", "", LogOptions(), "delimiter"),
        ("a.parquet", "no parquet", LogOptions(), "a.parquet"),
        ("a.csv.gz", "no gzip", LogOptions(), "a.csv.gz"),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_a_hint(
    tmp_path: Path, name: str, text: str, options: LogOptions, hint: str
) -> None:
    with pytest.raises(LogError, match=hint):
        read_log(write(tmp_path, name, text), options)


def test_a_minimum_rating_needs_ratings(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="which column is rating"):
        read_log(write(tmp_path, "bare.csv", DIALECTS["bare.csv"]), LogOptions(min_rating=4))


@settings(max_examples=30)  # each reads three files
@given(
    times=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    unit=st.sampled_from([("s", 1), ("ms", 1), ("us", 1000), ("ns", 1_000_000)]),
)
def test_order_is_by_time_then_by_place_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], unit: tuple[str, int]
) -> None:
    name, step = unit
    base = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[name] * 1_700_000_000
    rows = "".join(f"u,i{place},{base + step * time}\n" for place, time in enumerate(times))
    text = "user,item,timestamp\n" + rows
    path = write(tmp_path_factory.getbasetemp(), "order.csv", text)
    places = [int(event.item[1:]) for event in events(path, LogOptions(time_unit=name))]  # type: ignore[arg-type]
    assert places == [place for _, place in sorted((time, place) for place, time in enumerate(times))]
    assert events(path) == events(path, LogOptions(time_unit=name))  # type: ignore[arg-type]


@pytest.mark.data
def test_movielens_100k(data: Path) -> None:
    with read_log(data / "ml-100k.inter.gz", LogOptions(min_rating=4)) as log:
        account, arrays = log.account, log.arrays()
    assert (account.events, account.rows, account.below_minimum, account.malformed) == (55_375, 100_000, 44_625, 0)
    assert (np.diff(arrays.times_ms) >= 0).all()
    assert len(arrays.user_ids) == account.users == 942 and len(arrays.item_ids) == account.items == 1_447
