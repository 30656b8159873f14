"""`guard(app, *layers)`: an app behind an ordered stack of layers.

The order is checked when the stack is built: every fact a layer needs must be added by a layer further out.
"""

from collections.abc import Sequence

from mcp_guard.asgi import ASGIApp
from mcp_guard.check import Layer, guarded
from mcp_guard.failures import ConfigurationError
from mcp_guard.lifespan import Guard

__all__ = ["Guard", "check_order", "guard"]


def guard(app: ASGIApp, *layers: Layer) -> Guard:
    """`app` behind `layers`, outermost first.

    Raises:
        ConfigurationError: there is no layer, or a layer needs a fact that no layer further out adds.
    """
    if not layers:
        raise ConfigurationError("guard() needs at least one layer; see mcp_guard.profiles for complete stacks")
    check_order(layers)
    return guarded(layers, app)


def check_order(layers: Sequence[Layer]) -> None:
    """Check that every fact is known where it is needed.

    Raises:
        ConfigurationError: naming the layer, the fact and, if there is one, the layer that would have to stand first.
    """
    known: set[type] = set()
    for position, layer in enumerate(layers):
        name = type(layer).__name__
        for needed in layer.needs:
            if needed in known:
                continue
            later = next((type(other).__name__ for other in layers[position + 1 :] if needed in other.adds), None)
            if later is None:
                raise ConfigurationError(f"{name} needs {needed.__name__}, which no layer of the stack adds")
            raise ConfigurationError(
                f"{name} needs {needed.__name__}, which {later} adds: put {later} before {name} in the stack"
            )
        known.update(layer.adds)
