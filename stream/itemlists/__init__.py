"""Lists of `item-lists`: counted from histories, ranked by the live model, and written by the trainer."""
