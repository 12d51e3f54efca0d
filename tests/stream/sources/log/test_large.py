"""Files as people have them, at the sizes where readers lose rows or invent them."""

from pathlib import Path

from stream.sources.log.options import LogOptions
from stream.sources.log.reader import read_log

S1 = 1_700_000_000
ROWS = 6000


def test_quoted_line_breaks_beyond_a_readers_buffer_lose_no_row_and_make_none(tmp_path: Path) -> None:
    """36 MB; a third of the reviews hold lines that look like rows."""
    path = tmp_path / "reviews.csv"
    words, ghosts = "word word word,\n" * 375, "ghost,phantom,1600000000,x\n" * 222
    with path.open("w") as out:
        out.write("user_id,item_id,timestamp,review\n")
        for n in range(ROWS):
            out.write(f'u{n % 50},i{n},{S1 + n},"{ghosts if n % 3 == 0 else words}"\n')
    assert path.stat().st_size > 32 * 1024 * 1024
    with read_log(path, LogOptions()) as log:
        events = list(log.interactions())
    assert [(event.user, event.item, event.timestamp) for event in events] == [
        (f"u{n % 50}", f"i{n}", (S1 + n) * 1000) for n in range(ROWS)
    ]


def test_many_empty_times_before_good_ones_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"u{n},i{n}," + ("" if n < 100 else str(S1 + n)) for n in range(1000)]
    path.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    with read_log(path, LogOptions()) as log:
        assert [event.user for event in log.interactions()] == [f"u{n}" for n in range(100, 1000)]
