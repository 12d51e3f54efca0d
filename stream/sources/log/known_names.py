"""Usual names of the columns of logs, and the role of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["by_name", "known", "plain"]

# Lower case, letters and digits only. If several columns have names of one role, the earlier name in the list is taken.
_NAMES = {
    "user": (
        *("user", "userid", "uid", "visitorid", "customerid", "memberid", "accountid", "clientid", "personid"),
        *("reviewerid", "buyerid", "shopperid", "householdid", "householdkey", "subscriberid", "profileid", "playerid"),
        *("authorid", "userhash", "msno", "steamid", "fullvisitorid", "anonymousid", "distinctid", "deviceid"),
        *("customer", "member", "username", "reviewprofilename", "profilename", "visitor", "cookieid", "guestid"),
        *("usersession", "sessionid", "session"),
    ),
    "item": (
        *("item", "itemid", "iid", "productid", "movieid", "parentasin", "asin", "trackid", "songid", "bookid"),
        *("articleid", "newsid", "videoid", "businessid", "gmapid", "venueid", "placeid", "poiid", "locationid"),
        *("beerid", "beerbeerid", "recipeid", "gameid", "appid", "animeid", "jokeid", "bookmarkid", "contentid"),
        *("adgroupid", "adid", "offerid", "listingid", "hotelid", "courseid", "photoid", "streamid", "artistid"),
        *("restaurantid", "jobid", "postid", "paperid", "documentid", "docid", "contentitemid", "stockcode", "sku"),
        *("isbn", "isbn13", "aid", "product", "movie", "track", "song", "book", "article", "video", "game", "venue"),
    ),
    "timestamp": (
        *(
            "timens",
            "timestampns",
            "tsns",
            "timeus",
            "timestampus",
            "tsus",
            "timestampms",
            "timems",
            "tsms",
            "eventtimems",
            "eventtimestamp",
            "timestamp",
            "unixtimestamp",
        ),
        *("unixreviewtime", "reviewtimestamp", "eventtime", "timestampunix", "unixtime", "epoch", "epochms", "time"),
        *("ts", "datetime", "createdat", "created", "reviewtime", "createdtime", "createtime", "checkintime"),
        *("invoicedate", "orderdate", "orderedat", "purchasedat", "purchasedate", "transactiontime", "watchedat"),
        *("visittime", "clicktime", "interactiontime", "occurredat", "timestamputc", "utctime", "utctimestamp"),
        *("dateadded", "dateupdated", "eventdate", "date", "day", "tdat", "transactiondt", "transactiondate", "dt"),
        *("reviewdate", "timestamps", "stamp", "when", "hour"),
    ),
    "time_of_day": ("hourmin", "timeofday", "hhmm", "hour", "hourofday", "eventhour", "clock"),
    "rating": (
        *("rating", "ratings", "score", "stars", "overall", "reviewoverall", "reviewscore", "reviewrating"),
        *("bookrating", "ratingvalue", "userrating", "starrating", "grade"),
    ),
    "weight": ("weight",),
    "event": (
        *("event", "eventtype", "eventname", "eventkind", "behavior", "behaviour", "behaviortype", "behaviourtype"),
        *("action", "actiontype", "actionname", "interactiontype", "interaction", "feedbacktype", "verb", "kind"),
        *("activitytype", "type"),
    ),
}


def plain(name: str) -> str:
    """A name without case and separators.

    >>> plain("User-ID")
    'userid'
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _readings(name: str) -> list[str]:
    """The plain names that a column's name may be read as, the whole name first: `properties.product_id` also as
    `product_id`, and `user.id` as `user_id`. Parts such as `$date`, in which MongoDB wraps values, are left out."""
    parts = [part for part in re.split(r"[./\[\]]+", name) if part and not part.startswith("$")]
    endings = ["".join(parts[start:]) for start in range(len(parts))]
    return [plain(ending) for ending in [name, *endings]]


def by_name(role: str, names: Sequence[str]) -> list[int]:
    """Positions of the columns that may have `role` by their names, the likeliest first.

    >>> by_name("item", ["asin", "properties.product_id", "review"])
    [1, 0]
    """
    rank = {name: place for place, name in enumerate(_NAMES[role])}
    found = []
    for position, name in enumerate(names):
        readings = [(rank[reading], depth) for depth, reading in enumerate(_readings(name)) if reading in rank]
        if readings:
            place, depth = min(readings, key=lambda reading: reading[1])
            found.append((place, depth, position))
    return [position for _, _, position in sorted(found)]


def known(names: Sequence[str]) -> int:
    """How many of the roles user, item and time have a column among these names."""
    return sum(bool(by_name(role, names)) for role in ("user", "item", "timestamp"))
