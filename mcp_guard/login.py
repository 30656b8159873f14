"""A login from the command line: discovery, registration, authorization code with PKCE, and the access token.

The password way fills in the two forms of a server one owns, such as the embedded authorization server; the browser way
opens the authorization URL and waits for the redirect on a loopback port (RFC 8252 §7.3).
"""

import base64
import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx

from mcp_guard.callback import Callback
from mcp_guard.forms import Form
from mcp_guard.secret import Secret, constant_time_equals, mint_token

TIMEOUT_SECONDS = 10.0
BROWSER_TIMEOUT_SECONDS = 300.0
MAX_PAGES = 6
"""Pages a scripted login walks through before it gives up."""


class LoginError(Exception):
    """The login did not succeed; the message is one sentence that names the step and the cause."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """What discovery found: the resource's identifier and the metadata of its authorization server (RFC 8414)."""

    resource: str
    scopes: str | None
    metadata: Mapping[str, Any]

    def endpoint(self, name: str) -> str:
        """An endpoint of the authorization server.

        Raises:
            LoginError: it is not advertised.
        """
        value = self.metadata.get(name)
        if not isinstance(value, str):
            raise LoginError(f"the authorization server advertises no {name}")
        return value


@dataclass(frozen=True)
class Login:
    """One login at the authorization server of the MCP endpoint `url`; `client` is closed with it."""

    url: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=TIMEOUT_SECONDS))

    def with_password(self, user: str, password: Secret) -> str:
        """Fill in the login and consent pages. Answers the access token.

        Raises:
            LoginError: a step failed.
        """
        return self._run("http://127.0.0.1/callback", lambda url, redirect: self._walk(url, redirect, user, password))

    def with_browser(self, say: Callable[[str], None], *, timeout_seconds: float = BROWSER_TIMEOUT_SECONDS) -> str:
        """Open a browser and wait for it to come back. Answers the access token.

        Raises:
            LoginError: a step failed.
        """
        with Callback() as callback:

            def authorize(url: str, redirect: str) -> str:
                if not url.startswith(("https://", "http://")) or not (url.isascii() and url.isprintable()):
                    raise LoginError("the authorization_endpoint is not a web address")
                say(f"Opening {url}")
                _open_browser(url)
                answer = callback.wait(timeout_seconds)
                if answer is None:
                    raise LoginError("the browser did not come back from the authorization server")
                return answer

            return self._run(callback.redirect_uri, authorize)

    def _run(self, redirect_uri: str, authorize: Callable[[str, str], str]) -> str:
        try:
            found = discover(self.client, self.url)
            client_id = self._register(found, redirect_uri)
            verifier, state = mint_token(), mint_token()
            query = {
                "response_type": "code",
                "client_id": client_id,
                "redirect_uri": redirect_uri,
                "state": state,
                "code_challenge": _challenge(verifier),
                "code_challenge_method": "S256",
                "resource": found.resource,
                **({"scope": found.scopes} if found.scopes else {}),
            }
            callback = authorize(f"{found.endpoint('authorization_endpoint')}?{urlencode(query)}", redirect_uri)
            code = _code_of(callback, state, found.metadata)
            return self._redeem(found, client_id, redirect_uri, code, verifier)
        except httpx.HTTPError as error:
            raise LoginError(f"{self.url}: {type(error).__name__}: {error}") from error
        finally:
            self.client.close()

    def _register(self, found: Discovered, redirect_uri: str) -> str:
        answer = self.client.post(
            found.endpoint("registration_endpoint"),
            json={
                "client_name": "mcp-guard command line",
                "redirect_uris": [redirect_uri],
                "grant_types": ["authorization_code"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
            },
        )
        return _member(_json(answer, "registration", 201), "client_id", "registration")

    def _redeem(self, found: Discovered, client_id: str, redirect_uri: str, code: str, verifier: str) -> str:
        answer = self.client.post(
            found.endpoint("token_endpoint"),
            data={
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "client_id": client_id,
                "code_verifier": verifier,
                "resource": found.resource,
            },
        )
        return _member(_json(answer, "the token request", 200), "access_token", "the token request")

    def _walk(self, url: str, redirect_uri: str, user: str, password: Secret) -> str:
        """Follow redirects and fill in forms until the redirect URI is reached."""
        request = self.client.build_request("GET", url)
        asked_for_password = False
        for _ in range(MAX_PAGES):
            page = self.client.send(request)
            if page.is_redirect:
                target = urljoin(str(page.url), page.headers["location"])
                if target.startswith(redirect_uri):
                    return target
                request = self.client.build_request("GET", target)
                continue
            if page.status_code == 429:
                raise LoginError("too many login attempts; try again later")
            form = Form.on(page.text)
            if form is None:
                raise LoginError(f"the authorization server answered {page.status_code} where a form was expected")
            if form.password is not None:
                if asked_for_password:
                    raise LoginError(f"the authorization server refused the name or password of {user}")
                asked_for_password = True
            target = urljoin(str(page.url), form.action)
            request = self.client.build_request("POST", target, data=form.filled(user, password))
        raise LoginError("the login did not come to an end")


def discover(client: httpx.Client, url: str) -> Discovered:
    """Find the authorization server of an MCP endpoint (RFC 9728 §5, RFC 8414 §3).

    Raises:
        LoginError: the endpoint asks for no token, or a document is missing or malformed.
    """
    refused = client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    if refused.status_code == 405:
        refused = client.get(url)
    if refused.status_code != 401:
        raise LoginError(f"{url} answered {refused.status_code} to a request without a token; 401 was expected")
    challenge = httpx.Headers(refused.headers).get("www-authenticate", "")
    pointer = _parameter(challenge, "resource_metadata")
    if pointer is None:
        raise LoginError(f"{url} names no resource_metadata in its challenge")
    resource = _json(client.get(pointer), pointer, 200)
    servers = resource.get("authorization_servers")
    if not isinstance(servers, list) or not servers or not isinstance(servers[0], str):
        raise LoginError(f"{pointer} names no authorization server")
    issuer = urlsplit(servers[0])
    path = issuer.path.rstrip("/")
    address = f"{issuer.scheme}://{issuer.netloc}/.well-known/oauth-authorization-server{path}"
    metadata = _json(client.get(address), address, 200)
    if metadata.get("issuer") != servers[0]:
        raise LoginError(f"{address} is of another issuer than {servers[0]}")
    return Discovered(_member(resource, "resource", pointer), _parameter(challenge, "scope"), metadata)


def _open_browser(url: str) -> None:
    """Open the person's browser in a process of its own.

    Some browser commands return when their window is closed, and what they print must not mix with the token.
    """
    opening = "import sys, webbrowser; webbrowser.open(sys.argv[1])"
    subprocess.Popen([sys.executable, "-I", "-c", opening, url], stdout=sys.stderr)  # noqa: S603 - no shell


def _challenge(verifier: str) -> str:
    """RFC 7636 §4.2, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _code_of(callback: str, state: str, metadata: Mapping[str, Any]) -> str:
    """The code in an authorization response, after its state and issuer are checked (RFC 9207 §2.4)."""
    answer = dict(parse_qsl(urlsplit(callback).query))
    if not constant_time_equals(answer.get("state", ""), state):
        raise LoginError("the authorization response has another state than the request")
    if metadata.get("authorization_response_iss_parameter_supported") and answer.get("iss") != metadata["issuer"]:
        raise LoginError("the authorization response is of another issuer")
    if "error" in answer:
        raise LoginError(f"the authorization server answered {answer['error']}")
    return _member(answer, "code", "the authorization response")


def _json(answer: httpx.Response, step: str, expected: int) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == expected and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    raise LoginError(f"{step} failed with {answer.status_code}" + (f": {error}" if isinstance(error, str) else ""))


def _member(body: Mapping[str, Any], name: str, step: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise LoginError(f"{step} answered without {name}")
    return value


def _parameter(challenge: str, name: str) -> str | None:
    """A quoted parameter of a challenge (RFC 9110 §11.2)."""
    _, found, rest = challenge.partition(f'{name}="')
    return rest.partition('"')[0] if found else None
