"""`freshet api`: lists, histories and events over HTTP.

Read `partitions` first (what an instance may answer), then `follower` (how its copies stay complete), `membership`
(which instance holds which partition), `answers` and `events` (what is read and written), `app` (the routes) and
`server` (the process).
"""
