"""Lists carried on to where services read them. `follow` is the loop, `redis_sink` what it writes to."""
