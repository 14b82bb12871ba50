"""How many tokens a model's server counts where we count one. Pure."""

HIGHEST = 2.0
"""However much a server says it has counted: what it says must not make its window useless."""
_LEAST_TOKENS = 300
"""What is said of less than this tells more of the server's own words around it than of the model's tokens."""
_PATIENCE = 0.1


def learned(factor: float, counted: int, reported: int) -> float:
    """The factor after a server has reported so many tokens for what we have counted.

    It grows at once and comes down slowly, and it is never below 1: what fits by our own count alone is what fits at
    most.
    """
    if counted < _LEAST_TOKENS or reported <= 0:
        return factor
    seen = reported / counted
    return min(HIGHEST, max(1.0, seen if seen > factor else factor + (seen - factor) * _PATIENCE))
