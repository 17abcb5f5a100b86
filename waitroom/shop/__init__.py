"""For shops behind Waitroom: middleware that refuses every request that didn't come through the gateway.

It needs nothing of the rest of Waitroom, and no package but PyJWT. docs/shop.md explains how to use it.
"""

from waitroom.shop.asgi import ASGIMiddleware
from waitroom.shop.proof import ProofVerifier, Via
from waitroom.shop.wsgi import WSGIMiddleware

__all__ = ["ASGIMiddleware", "ProofVerifier", "Via", "WSGIMiddleware"]
