<?php
// Verifies the assertions of authproxy with nothing but PHP and its extension APCu, which keeps the proxy's keys between requests.

declare(strict_types=1);

namespace authproxy;

class InvalidAssertion extends \Exception {}
class KeysUnavailable extends \Exception {}

const LEEWAY = 10; // seconds of clock difference

/** Returns the claims of an assertion. Throws InvalidAssertion, or KeysUnavailable when nothing can be said about it. */
function verify(string $assertion, string $jwksUrl, string $issuer, string $audience): array
{
    // Three parts of base64url, and nothing around them: two headers in one line are none.
    if (strlen($assertion) > 65536 || !preg_match('/\A([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})\z/', $assertion, $part)) {
        throw new InvalidAssertion('not a token');
    }
    $header = json_decode(base64url($part[1]), true);
    $claims = json_decode(base64url($part[2]), true);
    if (!is_array($header) || !is_array($claims)) {
        throw new InvalidAssertion('not a token');
    }
    // The algorithm is ours to choose, never the token's (RFC 8725 §3.1), and so is the type (§3.11).
    if (($header['alg'] ?? '') !== 'ES256' || ($header['typ'] ?? '') !== 'authproxy-assertion+jwt' || isset($header['crit'])) {
        throw new InvalidAssertion('not an assertion');
    }
    $key = is_string($header['kid'] ?? null) ? key_of($header['kid'], $jwksUrl) : null;
    if ($key === null) {
        throw new InvalidAssertion('unknown key');
    }
    if (openssl_verify("$part[1].$part[2]", der(base64url($part[3])), $key, OPENSSL_ALGO_SHA256) !== 1) {
        throw new InvalidAssertion('forged');
    }
    if (($claims['iss'] ?? null) !== $issuer) {
        throw new InvalidAssertion('another issuer');
    }
    if (!in_array($audience, (array) ($claims['aud'] ?? []), true)) {
        throw new InvalidAssertion('another audience');
    }
    if (!is_string($claims['sub'] ?? null) || $claims['sub'] === '') {
        throw new InvalidAssertion('no subject');
    }
    if (!is_int($claims['iat'] ?? null) || !is_int($claims['exp'] ?? null)
        || $claims['exp'] <= time() - LEEWAY || $claims['iat'] > time() + LEEWAY) {
        throw new InvalidAssertion('expired, or not good yet');
    }
    return $claims;
}

/** The proxy's public key with that ID, as PEM, or null. Keys are fetched when they are 5 minutes old or a new one is asked for. */
function key_of(string $kid, string $jwksUrl): ?string
{
    $name = 'authproxy ' . $jwksUrl;
    $kept = apcu_fetch($name) ?: ['keys' => [], 'tried' => 0];
    $age = time() - $kept['tried'];
    if ($age > 300 || !isset($kept['keys'][$kid]) && $age > 10) { // forged key IDs must not cause a fetch each
        $kept['tried'] = time();
        apcu_store($name, $kept); // the other workers need not try as well
        $answer = @file_get_contents($jwksUrl, false, stream_context_create(['http' => ['timeout' => 3, 'follow_location' => 0]]), 0, 1 << 18);
        $set = is_string($answer) ? json_decode($answer, true) : null;
        if (is_array($set['keys'] ?? null)) {
            $kept['keys'] = [];
            foreach ($set['keys'] as $jwk) { // Other keys in the set are for other signatures.
                if (($jwk['kty'] ?? '') === 'EC' && ($jwk['crv'] ?? '') === 'P-256' && isset($jwk['kid'], $jwk['x'], $jwk['y'])) {
                    $kept['keys'][$jwk['kid']] = pem(base64url($jwk['x']), base64url($jwk['y']));
                }
            }
            apcu_store($name, $kept);
        } else {
            error_log("authproxy: no keys at $jwksUrl"); // those that we have stay good
        }
    }
    if (!$kept['keys']) {
        throw new KeysUnavailable('the keys of the proxy cannot be fetched');
    }
    return $kept['keys'][$kid] ?? null;
}

function base64url(string $text): string
{
    return (string) base64_decode(strtr($text, '-_', '+/'), true);
}

/** A point of P-256 as a SubjectPublicKeyInfo (RFC 5480). */
function pem(string $x, string $y): string
{
    $der = hex2bin('3059301306072a8648ce3d020106082a8648ce3d03010703420004') . $x . $y;
    return "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($der), 64, "\n") . "-----END PUBLIC KEY-----\n";
}

/** A signature of ES256, r and s of 32 bytes each (RFC 7518 §3.4), as OpenSSL wants it: SEQUENCE { INTEGER r, INTEGER s }. */
function der(string $signature): string
{
    $integers = '';
    foreach (str_split($signature, 32) as $n) {
        $n = ltrim($n, "\0");
        if ($n === '' || ord($n[0]) >= 0x80) { // positive, and not nothing
            $n = "\0" . $n;
        }
        $integers .= "\x02" . chr(strlen($n)) . $n;
    }
    return "\x30" . chr(strlen($integers)) . $integers;
}
