"""Where events come from: a log that is replayed, or a simulated world."""
