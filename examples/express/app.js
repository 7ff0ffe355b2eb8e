// An app behind authproxy. It greets whom the proxy's signed statement, the assertion, is about, and refuses everybody else.
//
// It believes nothing but the assertion: the other headers say the same, but anyone who reaches this port could send them.

import express from "express";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const issuer = process.env.AUTHPROXY_ISSUER ?? "http://localhost:8080"; // public_url of the proxy
const audience = process.env.AUTHPROXY_AUDIENCE ?? "http://127.0.0.1:5000"; // upstream in the proxy's configuration
const jwks = process.env.AUTHPROXY_JWKS ?? `${issuer}/auth/jwks.json`;

// The proxy's public keys, fetched when they are 10 minutes old, or a new one is asked for and 30 seconds have passed.
const remote = createRemoteJWKSet(new URL(jwks), { timeoutDuration: 3000 });

class KeysUnavailable extends Error {}

async function keys(header, token) {
  try {
    return await remote(header, token);
  } catch (e) {
    // Those are about the assertion, and nothing but the keys themselves is missing otherwise.
    if (e instanceof errors.JWKSNoMatchingKey || e instanceof errors.JWKSMultipleMatchingKeys || e instanceof errors.JOSENotSupported) throw e;
    throw new KeysUnavailable(`${jwks}: ${e.message}`);
  }
}

// The claims of an assertion; throws when it is not a good one.
async function verify(assertion) {
  const { payload } = await jwtVerify(assertion, keys, {
    issuer,
    audience,
    algorithms: ["ES256"], // ours to choose, never the token's (RFC 8725 §3.1), and so is the type (§3.11)
    typ: "authproxy-assertion+jwt",
    requiredClaims: ["sub", "iat", "exp"],
    maxTokenAge: "1h", // only so that iat is checked too: exp comes sooner
    clockTolerance: 10, // seconds
  });
  return payload;
}

const app = express();
app.disable("x-powered-by");

app.use(async (req, res, next) => {
  try {
    req.user = await verify(req.get("X-Authproxy-Assertion") ?? ""); // two of them are joined by a comma, and not a token
  } catch (e) {
    console.warn(`no valid assertion: ${e.message}`);
    if (e instanceof KeysUnavailable) return res.status(503).type("text").send("The proxy's keys cannot be fetched.\n");
    return res.status(401).type("text").send("This app is to be used through its proxy.\n");
  }
  next();
});

app.get("/", (req, res) => {
  const { name, username, email, sub, groups } = req.user;
  res.type("text").send(`Hello, ${name || username || email || sub}!\nYour groups: ${groups.join(", ") || "none"}\n`);
});

const server = app.listen(Number(process.env.PORT ?? 5000), "127.0.0.1", (e) => {
  if (e) throw e;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
