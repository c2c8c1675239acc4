"""Who may ask: a token that becomes a cookie, and the names of this page in Host and Origin.

A page on the web can make the browser of somebody who is at this machine ask for anything here. Without the cookie, which
is never sent along from another site (SameSite=Strict), it gets nothing; a name of its own that it points to 127.0.0.1 (DNS
rebinding) is none of ours; and nothing is done without an Origin that is ours.
"""

from __future__ import annotations

import hmac
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHORTEST_TOKEN = 20  # characters, of one that somebody chose
SAFE_METHODS = {"GET", "HEAD"}
HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",  # with "no-referrer" a form would be sent with Origin: null
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=(), browsing-topics=()",
}


class TokenError(Exception):
    """A token file cannot be used; the message says why."""


@dataclass
class Access:
    """What a request must show.

    Attributes:
        token: whoever has it may look and correct.
        origins: how this page may be addressed, such as "http://127.0.0.1:9788".
        once: codes that are as good as the token, once; the browser that we open has one, for others can see its arguments.

    """

    token: str
    origins: tuple[str, ...]
    once: set[str] = field(default_factory=set)

    @property
    def cookie(self) -> str:
        """Its name: cookies do not know of ports."""
        return f"digitd-{urlsplit(self.origins[0]).port or 443}"

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(origin).netloc for origin in self.origins}

    def address(self, code: str) -> str:
        """The first address to open."""
        return f"{self.origins[0]}/?{urlencode({'token': code})}"

    def invite(self) -> str:
        """An address that is good for one visit."""
        code = secrets.token_urlsafe(32)
        self.once.add(code)
        return self.address(code)

    def admits(self, code: str) -> bool:
        """Whether a code from an address is good."""
        if code in self.once:
            self.once.discard(code)
            return True
        return self.knows(code)

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self.token.encode())


def read_token(file: Path) -> str:
    """The token in a file.

    Raises:
        TokenError: it cannot be read, others can read it, or it is too short.

    """
    try:
        mode, token = file.stat().st_mode, file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise TokenError(f"--token-file {file}: expected a file with a token. Received: {why}.") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise TokenError(f"--token-file {file}: expected a file that is closed to others. Received: {stat.filemode(mode)}.")
    if len(token) < SHORTEST_TOKEN:
        raise TokenError(
            f"--token-file {file}: expected at least {SHORTEST_TOKEN} characters, as `openssl rand -hex 32` gives. "
            f"Received: {len(token)}."
        )
    return token


class Guard:
    """Lets requests through that may come in, and tells browsers with each answer what it may not do."""

    def __init__(self, app: ASGIApp, access: Access, templates: Environment) -> None:
        self._app, self._access, self._templates = app, access, templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no web sockets

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                headers += HEADERS.items()
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        await (self._refuse(Request(scope)) or self._app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """What is answered in place of the page; None where it is to be answered."""
        access = self._access
        host = request.headers.get("host", "")
        if host not in access.hosts:
            return self._say(421, "This is not its address", f"Expected {access.origins[0]}. Received: {host}.")
        origin = request.headers.get("origin")
        if request.method not in SAFE_METHODS and origin not in access.origins:
            return self._say(
                403, "Not from here", f"Expected a form of this page. Received: one from {origin or 'nowhere'}."
            )
        if (code := request.query_params.get("token")) is not None:
            return self._let_in(request, access.admits(code))
        if access.knows(request.cookies.get(access.cookie, "")):
            return None
        if request.headers.get("sec-fetch-site") == "cross-site" and request.method in SAFE_METHODS:
            return self._go_on(request)  # somebody followed a link in a mail: his cookie is not sent, but from here it is
        return self._say(
            401,
            "Who is there?",
            "Open the address that `digitd web` printed, with its token. Of a service its administrator has it.",
        )

    def _let_in(self, request: Request, admitted: bool) -> Response:
        if not admitted:
            return self._say(
                401,
                "This token is not good any more",
                "Open the address that `digitd web` printed when it was started last.",
            )
        access = self._access
        cross_site = request.headers.get("sec-fetch-site") == "cross-site"
        response = self._go_on(request) if cross_site else RedirectResponse(_without_token(request), 303)
        secure = access.origins[0].startswith("https:")
        response.set_cookie(access.cookie, access.token, httponly=True, samesite="strict", secure=secure)
        return response

    def _go_on(self, request: Request) -> Response:
        """A page that asks again, from here: then the browser sends the cookie along."""
        page = self._templates.get_template("go_on.html").render(address=_without_token(request))
        return HTMLResponse(page)

    def _say(self, status: int, title: str, text: str) -> Response:
        page = self._templates.get_template("refused.html").render(title=title, text=text)
        return HTMLResponse(page, status)


def _without_token(request: Request) -> str:
    rest = urlencode([(key, value) for key, value in request.query_params.multi_items() if key != "token"])
    path = "/" + request.url.path.lstrip("/")  # never "//elsewhere"
    return f"{path}?{rest}" if rest else path
