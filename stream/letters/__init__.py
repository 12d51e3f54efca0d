"""Dead letters: they are read and counted, corrected, and sent again, each once."""
