"""The sample catalog: product pictures drawn from a seed, with known truth, so that a first run needs no data."""

from lookalike.sample.write import make_sample

__all__ = ["make_sample"]
