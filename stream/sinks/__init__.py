"""Copies lists to a store from which services read them. `follow` is the loop, `redis_sink` the store."""
