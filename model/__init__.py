"""The diffusion recommenders. Knows neither storage nor streams."""
