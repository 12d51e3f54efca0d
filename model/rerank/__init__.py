"""What the stream counted, and the small network that ranks candidates by it and by the model's scores."""
