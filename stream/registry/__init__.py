"""Where models live: the announced slots, the stored artifacts, the statistics stored beside them."""
