"""Dead letters after the fact: read and counted, mended, and sent again, each once."""
