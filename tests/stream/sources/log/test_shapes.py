"""Files as the world has them: real headers and formats with made-up values, read right or refused with a way out."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.reader import read_log
from stream.wire.records import Interaction


class Shape(NamedTuple):
    file: str
    text: str
    first: tuple[str, str, int]  # user, item, time in ms of the first event in time order
    kind: str = ""
    options: LogOptions | None = None
    rows: int = 2


def ms(seconds: int) -> int:
    return seconds * 1000


S1, S2 = 1_555_000_001, 1_555_000_777  # 2019-04-11

SHAPES = {
    "movielens csv": Shape(
        "ratings.csv", f"userId,movieId,rating,timestamp\n7,9,4.5,{S2}\n1,2,5.0,{S1}\n", ("1", "2", ms(S1))
    ),
    "movielens dat": Shape("ratings.dat", f"1::2::5::{S1}\n7::9::4::{S2}\n", ("1", "2", ms(S1))),
    "movielens u.data": Shape("u.data", f"1\t2\t5\t{S1}\n7\t9\t4\t{S2}\n", ("1", "2", ms(S1))),
    "recbole inter": Shape(
        "x.inter", f"user_id:token\titem_id:token\ttimestamp:float\nu1\ti1\t{S1}\nu2\ti2\t{S2}\n", ("u1", "i1", ms(S1))
    ),
    "amazon ratings": Shape(
        "ratings_Books.csv",
        f"A1,B00X,5.0,{S1}\nA2,B00Y,4.0,{S2}\n",
        ("A1", "B00X", ms(S1)),
        "",
        LogOptions(user=0, item=1, rating=2, timestamp=3),
    ),
    "amazon reviews 2018": Shape(
        "reviews.jsonl",
        '{"overall": 5.0, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 1555000001}\n'
        '{"overall": 4.0, "reviewerID": "A2", "asin": "B2", "unixReviewTime": 1555000777}\n',
        ("A1", "B1", ms(S1)),
    ),
    "amazon reviews 2023": Shape(
        "r.jsonl",
        '{"rating": 5.0, "user_id": "A1", "parent_asin": "B1", "timestamp": 1555000001123}\n'
        '{"rating": 4.0, "user_id": "A2", "parent_asin": "B2", "timestamp": 1555000777123}\n',
        ("A1", "B1", 1555000001123),
    ),
    "yelp": Shape(
        "review.json",
        '{"review_id": "r1", "user_id": "u1", "business_id": "b1", "stars": 5.0, "date": "2019-04-11 16:26:41"}\n'
        '{"review_id": "r2", "user_id": "u2", "business_id": "b2", "stars": 4.0, "date": "2019-04-11 16:39:37"}\n',
        ("u1", "b1", ms(S1)),
    ),
    "retailrocket": Shape(
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1555000001123,1,view,2,\n1555000777123,7,addtocart,9,\n",
        ("1", "2", 1555000001123),
        "view",
    ),
    "rees46": Shape(
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde\n"
        "2019-10-01 00:00:01 UTC,purchase,3900821,2053013552326770905,x.y,aqua,33.20,554748717,9333dfbd\n",
        ("541312140", "44600062", 1569888000000),
        "view",
    ),
    "yoochoose clicks with a header": Shape(
        "clicks.csv",
        "session_id,timestamp,item_id,category\n1,2014-04-07T10:51:09.277Z,214536502,0\n2,2014-04-07T10:54:09.868Z,214536500,0\n",
        ("1", "214536502", 1396867869277),
    ),
    "yoochoose clicks": Shape(
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n2,2014-04-07T10:54:09.868Z,214536500,S\n",
        ("1", "214536502", 1396867869277),
        "",
        LogOptions(user=0, timestamp=1, item=2),
    ),
    "taobao user behaviour": Shape(
        "UserBehavior.csv",
        f"1,2268318,2520377,pv,{S1}\n1,2333346,2520771,buy,{S2}\n",
        ("1", "2268318", ms(S1)),
        "pv",
        LogOptions(user=0, item=1, event=3, timestamp=4),
    ),
    "gowalla": Shape(
        "checkins.txt",
        "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22847\n0\t2010-10-18T22:17:43Z\t30.26\t-97.76\t420315\n",
        ("0", "420315", 1287440263000),
        "",
        LogOptions(user=0, timestamp=1, item=4),
    ),
    "lastfm 1k": Shape(
        "plays.tsv",
        "user_id\ttimestamp\tartid\tartname\ttraid\ttraname\n"
        "user_1\t2009-05-04T23:08:57Z\ta1\tDeep Dish\tt1\tFuck Me\nuser_1\t2009-05-04T13:54:10Z\ta2\tX\tt2\tY\n",
        ("user_1", "t2", 1241445250000),
        "",
        LogOptions(item="traid"),
    ),
    "steam": Shape(
        "steam.csv",
        f"user_id,item_id,playtime,timestamp\nu1,i1,12.5,{S1}\nu2,i2,3.0,{S2}\n",
        ("u1", "i1", ms(S1)),
    ),
    "goodreads": Shape(
        "g.jsonl",
        '{"user_id": "u1", "book_id": "b1", "rating": 5, "date_added": "Thu Apr 11 16:26:41 +0000 2019"}\n'
        '{"user_id": "u2", "book_id": "b2", "rating": 4, "date_added": "Thu Apr 11 16:39:37 +0000 2019"}\n',
        ("u1", "b1", ms(S1)),
        "",
        LogOptions(timestamp="date_added", time_format="%a %b %d %H:%M:%S %z %Y"),
    ),
    "netflix prize, melted": Shape(
        "netflix.csv",
        "user,item,rating,date\n1488844,1,3,2005-09-06\n822109,1,5,2005-05-13\n",
        ("822109", "1", 1115942400000),
    ),
    "kuairand": Shape(
        "log.csv",
        "user_id,video_id,date,hourmin,time_ms,is_click\n0,3784,20220408,1000,1649384000000,1\n0,99,20220408,1100,1649387600000,0\n",
        ("0", "3784", 1649384000000),
    ),
    "a calendar date in digits": Shape(
        "days.csv", "user,item,date\nu1,i1,20220408\nu2,i2,20220409\n", ("u1", "i1", 1649376000000)
    ),
    "kuairand without a time": Shape(
        "log.csv",
        "user_id,video_id,date,hourmin\n0,3784,20220408,1000\n0,99,20220408,1130\n",
        ("0", "3784", 1649376000000 + 10 * 3_600_000),
    ),
    "h&m": Shape(
        "transactions.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,c1,0663713001,0.05,2\n2018-09-21,c2,0541518023,0.03,2\n",
        ("c1", "0663713001", 1537401600000),
        "",
        LogOptions(timestamp="t_dat", user="customer_id", item="article_id"),
    ),
    "instacart": Shape(
        "orders.csv",
        "user_id,product_id,order_timestamp\n1,196,1555000001\n1,14084,1555000777\n",
        ("1", "196", ms(S1)),
        "",
        LogOptions(timestamp="order_timestamp"),
    ),
    "segment track": Shape(
        "track.jsonl",
        '{"userId": "u1", "event": "Product Viewed", "timestamp": "2019-04-11T16:26:41.000Z",'
        ' "properties": {"product_id": "p1"}}\n'
        '{"userId": "u2", "event": "Order Completed", "timestamp": "2019-04-11T16:39:37.000Z",'
        ' "properties": {"product_id": "p2"}}\n',
        ("u1", "p1", ms(S1)),
        "Product Viewed",
        LogOptions(item="properties.product_id"),
    ),
    "json array": Shape(
        "events.json",
        '[{"user": "u2", "item": "i2", "timestamp": 1555000777000},\n'
        ' {"user": "u1", "item": "i1", "timestamp": 1555000001000}]',
        ("u1", "i1", ms(S1)),
    ),
    "microseconds": Shape("us.csv", f"user,item,timestamp\nu1,i1,{S1}000000\nu2,i2,{S2}000000\n", ("u1", "i1", ms(S1))),
    "nanoseconds by name": Shape(
        "ns.csv", f"user,item,time_ns\nu1,i1,{S1}000000000\nu2,i2,{S2}000000000\n", ("u1", "i1", ms(S1))
    ),
    "an offset in the zone": Shape(
        "zone.csv",
        "user,item,time\nu1,i1,2019-04-11 18:26:41 +0200\nu2,i2,2019-04-11 18:39:37 +0200\n",
        ("u1", "i1", ms(S1)),
    ),
    "slashes": Shape(
        "slash.csv", "user,item,time\nu1,i1,2019/04/11 16:26:41\nu2,i2,2019/04/11 16:39:37\n", ("u1", "i1", ms(S1))
    ),
    "a byte order mark and semicolons": Shape(
        "excel.csv", f"\ufeffuser;item;timestamp\r\nu1;i1;{S1}\r\nu2;i2;{S2}\r\n", ("u1", "i1", ms(S1))
    ),
    "a blank last line": Shape("blank.csv", f"user,item,timestamp\nu1,i1,{S1}\nu2,i2,{S2}\n\n\n", ("u1", "i1", ms(S1))),
    "pipes": Shape("pipes.txt", f"user|item|timestamp\nu1|i1|{S1}\nu2|i2|{S2}\n", ("u1", "i1", ms(S1))),
    "fields that begin late": Shape(
        "late.jsonl",
        '{"user": "u1", "item": "i1", "timestamp": 1555000001000}\n'
        '{"user": "u2", "item": "i2", "timestamp": 1555000777000, "event": "buy"}\n',
        ("u1", "i1", ms(S1)),
    ),
    "quoted line breaks": Shape(
        "reviews.csv",
        f'user_id,item_id,timestamp,review\nu1,i1,{S1},"two\nlines, and a comma"\nu2,i2,{S2},short\n',
        ("u1", "i1", ms(S1)),
    ),
    "iso and numbers mixed": Shape(
        "mixed.csv",
        f"user,item,timestamp\nu1,i1,2019-04-11T16:26:41Z\nu2,i2,{S2}\nu3,i3,{S2 + 1}\n",
        ("u1", "i1", ms(S1)),
        rows=3,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_known_shape_is_read_right(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    path = tmp_path / shape.file
    path.write_text(shape.text)
    with read_log(path, shape.options) as log:
        events = list(log.interactions())
    assert len(events) == shape.rows
    first = events[0]
    assert (first.user, first.item, first.timestamp) == shape.first
    assert first.event == shape.kind


REFUSED = {
    "million song taste profile: no time": ("train.txt", "u1\tSOAKIMP\t1\nu1\tSOBBMDR\t2\n"),
    "book-crossing: no time": (
        "BX.csv",
        '"User-ID";"ISBN";"Book-Rating"\n"1";"0195153448";"0"\n"2";"0002005018";"5"\n',
    ),
    "no user": ("items.csv", f"item,timestamp\ni1,{S1}\ni2,{S2}\n"),
    "only a header": ("empty.csv", "user,item,timestamp\n"),
    "empty times only": ("times.csv", "user,item,timestamp\nu1,i1,\nu2,i2,\n"),
    "nothing at all": ("nothing.csv", ""),
    "a picture": ("picture.csv", "\x89PNG\r\n\x1a\n\x00\x00\x00"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_log_is_refused_in_words(tmp_path: Path, name: str) -> None:
    file, text = REFUSED[name]
    path = tmp_path / file
    path.write_text(text)
    with pytest.raises(LogError) as refused:
        read_log(path)
    assert len(str(refused.value)) > 20


def test_columns_without_names_are_taken_by_what_they_hold_or_the_right_options_are_proposed(tmp_path: Path) -> None:
    """YooChoose as it is: the session, its time, the item, and a category of few values."""
    path = tmp_path / "yoochoose-clicks.dat"
    rows = [f"{n // 2},2014-04-07T10:{n % 60:02}:09.277Z,{214536500 + n % 7},{n % 3}" for n in range(120)]
    path.write_text("\n".join(rows))
    with read_log(path) as log:
        first = next(log.interactions())
        assert (first.user, first.item, first.timestamp) == ("0", "214536500", 1396864809277)
        assert [(column.role, column.name) for column in log.account.columns] == [
            *(("user", "0"), ("item", "2"), ("timestamp", "1"))
        ]
    days = ["1,2014-04-07T10:51:09.277Z,214536502,0", "1,2014-04-07T10:54:09.868Z,214536500,0"]
    days += ["2,2014-04-07T13:56:37.614Z,214662742,0", "3,2014-04-02T13:17:46.940Z,214716935,S"]
    path.write_text("\n".join(days))  # too few to tell a session from a category
    with pytest.raises(LogError) as refused:
        read_log(path)
    assert str(refused.value).endswith("Type for example --user 0 --item 2 --timestamp 1")


def test_what_a_later_line_has_and_the_first_has_not_is_kept(tmp_path: Path) -> None:
    lines = [
        {"user": "u1", "item": "i1", "timestamp": ms(S1)},
        {"user": "u2", "item": "i2", "timestamp": ms(S1) + 1, "event": "buy", "weight": 2.5},
        {"user": "u3", "item": "i3", "timestamp": ms(S1) + 2, "weight": 0},
    ]
    path = tmp_path / "late.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with read_log(path) as log:
        assert list(log.interactions()) == [
            Interaction("u1", "i1", ms(S1)),
            Interaction("u2", "i2", ms(S1) + 1, 2.5, "buy"),
            Interaction("u3", "i3", ms(S1) + 2, 0.0),
        ]


def test_what_was_taken_is_shown_with_the_first_rows_and_the_dates(tmp_path: Path) -> None:
    path = tmp_path / "days.csv"
    path.write_text("who,item,date,kind\nann,tea,20220408,view\nbob,cups,20220409,buy\n")
    with read_log(path, LogOptions(user="who")) as log:
        shown = "\n".join(log.account.lines())
    for role, name, how in (("user", "who", "as asked"), ("timestamp", "date", "by its name")):
        assert re.search(rf"^  {role} +{name} +{how} ", shown, re.M), shown
    assert "taken as UTC" in shown
    assert "user bob, item cups, 2022-04-09 00:00:00 UTC, buy" in shown
    assert "2 events of 2 users and 2 items in 2 rows, 2022-04-08 00:00:00 UTC to 2022-04-09 00:00:00 UTC" in shown


def test_a_rating_is_no_reason_to_refuse_a_log_without_one(tmp_path: Path) -> None:
    """As `freshet demo` reads: low ratings are left out where there are ratings."""
    path = tmp_path / "log.csv"
    path.write_text("timestamp,visitorid,event,itemid,transactionid\n1555000001123,1,view,2,\n1555000777123,7,buy,9,\n")
    with read_log(path, usual_ratings=True) as log:
        assert len(log) == 2
    path.write_text(f"user,item,timestamp,rating\nu1,i1,{S1},5\nu2,i2,{S2},3.5\nu3,i3,{S2},4\n")
    with read_log(path, usual_ratings=True) as log:
        assert [event.user for event in log.interactions()] == ["u1", "u3"]


GOOD = "user,item,timestamp\n" + f"u,i,{S1}\n" * 500
SWALLOWED = {
    "a quote that never closes": (f'{GOOD}u1,"i1,{S1}\nu2,i2,{S2}\n', r"line 502 never closes.*--quote none"),
    "a quote that another row's quote closes": (
        f'{GOOD}u1,"i1,{S1}\nu2,i2,{S2}\nu3,i"3,{S2}\n',
        r"line 502 .*--quote none",
    ),
    "a row without an end": (f'{GOOD}u1,i1,{S1},"' + 20 * 1024 * 1024 * "x" + '"\n', r"more than 8 MiB.*--quote none"),
    "a name that contradicts the numbers": (f"user,item,time_ms\nu1,i1,{S1}\nu2,i2,{S2}\n", r"--time-unit s or ms"),
    "times that are none": ("user,item,timestamp\nu1,i1,soon\nu2,i2,later\n", r"'?soon'?"),
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_what_would_swallow_or_move_events_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    text, words = SWALLOWED[name]
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(LogError, match=words) as refused:
        read_log(path)
    assert len(str(refused.value)) < 400


def test_one_of_anything_is_told_in_the_singular(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(f"user,item,timestamp\nu,i,{S1}\n")
    with read_log(path) as log:
        assert log.account.lines()[-1].startswith("1 event of 1 user and 1 item in 1 row, 2019-04-11 16:26:41 UTC to ")
