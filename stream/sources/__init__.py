"""The sources of events: a log that is replayed, or a simulated world."""
