"""What `model` raises."""

__all__ = ["ArtifactError", "ModelError", "NonFiniteScores"]


class ModelError(RuntimeError):
    """Root: a model that cannot be built, loaded or used."""


class NonFiniteScores(ModelError):
    """Scoring gave NaN or infinity: withhold these lists and serve another model."""


class ArtifactError(ModelError):
    """A stored model that is missing, incomplete, altered or of an unknown format."""
