"""Object re-identification across domains: data, models, losses, clustering, recipes."""

__version__ = "0.1.0"
