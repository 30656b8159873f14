"""An independent MCP deployment with switchable faults, against which the certifier proves its teeth.

It shares no code with the product and uses no JOSE, OAuth or MCP library, so that it can disagree with them.
"""

from tests.support.model_server.app import MINT_PATH, ModelServer
from tests.support.model_server.deployment import USERS
from tests.support.model_server.faults import FAULTS, Fault, UnknownFault

__all__ = ["FAULTS", "MINT_PATH", "USERS", "Fault", "ModelServer", "UnknownFault"]
