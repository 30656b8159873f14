"""Verifies access tokens: which issuer a token is from, and what it says when that issuer stands for it."""

from mcp_guard.tokens.issuers import Fallback, IssuerPolicy, TrustedIssuer
from mcp_guard.tokens.remembered import Remembered, RememberedTokens
from mcp_guard.tokens.verification import Verification, Verified

__all__ = ["Fallback", "IssuerPolicy", "Remembered", "RememberedTokens", "TrustedIssuer", "Verification", "Verified"]
