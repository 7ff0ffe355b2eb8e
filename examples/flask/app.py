"""An app behind authproxy. It greets whom the proxy's signed statement, the assertion, is about, and refuses everybody else.

It believes nothing but the assertion: the other headers say the same, but anyone who reaches this port could send them.
"""

import json
import os
import threading
import time
import urllib.request

import jwt
from flask import Flask, Response, abort, g, request

ISSUER = os.environ.get("AUTHPROXY_ISSUER", "http://localhost:8080")  # public_url of the proxy
AUDIENCE = os.environ.get("AUTHPROXY_AUDIENCE", "http://127.0.0.1:5000")  # upstream in the proxy's configuration
JWKS_URL = os.environ.get("AUTHPROXY_JWKS", ISSUER + "/auth/jwks.json")
TYPE = "authproxy-assertion+jwt"


class Keys:
    """The proxy's public keys by their ID, fetched when they are 5 minutes old or a new one is asked for."""

    def __init__(self, url, lifetime=300, pause=10):
        self.url, self.lifetime, self.pause = url, lifetime, pause  # pause: forged key IDs must not cause a fetch each
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # no HTTP_PROXY
        self.lock, self.keys, self.tried = threading.Lock(), {}, None

    def get(self, kid):
        with self.lock:
            age = float("inf") if self.tried is None else time.monotonic() - self.tried
            if age > self.lifetime or kid not in self.keys and age > self.pause:
                self.tried = time.monotonic()
                try:
                    with self.open(self.url, timeout=3) as answer:
                        found = json.loads(answer.read(1 << 18))["keys"]
                    # Other keys in the set are for other signatures.
                    self.keys = {k["kid"]: jwt.PyJWK(k).key for k in found if (k["kty"], k.get("crv")) == ("EC", "P-256")}
                except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as e:  # the keys that we have stay good
                    app.logger.warning("%s: %s", self.url, e)
            if not self.keys:
                abort(503, "The proxy's keys cannot be fetched.")
            return self.keys.get(kid)


def verify(token):
    """Returns the claims of an assertion, or raises jwt.PyJWTError."""
    header = jwt.get_unverified_header(token)
    key = keys.get(header.get("kid"))
    if key is None:
        raise jwt.InvalidTokenError("unknown key")
    # The algorithm is ours to choose, never the token's (RFC 8725 §3.1), and so is the type (§3.11).
    if header.get("typ") != TYPE:
        raise jwt.InvalidTokenError("not an assertion")
    return jwt.decode(token, key, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE, leeway=10,
                      options={"require": ["iss", "aud", "sub", "iat", "exp"]})


app = Flask(__name__)
keys = Keys(JWKS_URL)


@app.before_request
def authenticate():
    try:
        g.user = verify(request.headers.get("X-Authproxy-Assertion", ""))
    except jwt.PyJWTError as e:
        app.logger.warning("no valid assertion: %s", e)
        abort(401, "This app is to be used through its proxy.")


@app.get("/")
def hello():
    name = next(g.user[c] for c in ("name", "username", "email", "sub") if g.user.get(c))
    groups = ", ".join(g.user["groups"]) or "none"
    return Response(f"Hello, {name}!\nYour groups: {groups}\n", mimetype="text/plain")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "5000")))
