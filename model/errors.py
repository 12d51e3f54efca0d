"""The errors that `model` raises."""

__all__ = ["ArtifactError", "ModelError", "NonFiniteScores"]


class ModelError(RuntimeError):
    """A model that cannot be built, loaded or used; the base class of the other errors."""


class NonFiniteScores(ModelError):
    """Scoring gave NaN or infinity: withhold these lists and serve another model."""


class ArtifactError(ModelError):
    """A stored model that is missing, incomplete, altered or of an unknown format."""
