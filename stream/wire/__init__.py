"""What travels on each topic, and the topics themselves."""
