<?php
// An app behind authproxy. It greets whom the proxy's signed statement, the assertion, is about, and refuses everybody else.
//
// It believes nothing but the assertion: the other headers say the same, but anyone who reaches this app could send them.

declare(strict_types=1);

require __DIR__ . '/authproxy.php';

$issuer = getenv('AUTHPROXY_ISSUER') ?: 'http://localhost:8080'; // public_url of the proxy
$audience = getenv('AUTHPROXY_AUDIENCE') ?: 'http://127.0.0.1:5000'; // upstream in the proxy's configuration
$jwks = getenv('AUTHPROXY_JWKS') ?: "$issuer/auth/jwks.json";

header('Content-Type: text/plain; charset=utf-8');
try {
    $user = authproxy\verify($_SERVER['HTTP_X_AUTHPROXY_ASSERTION'] ?? '', $jwks, $issuer, $audience);
} catch (authproxy\InvalidAssertion $e) {
    error_log('no valid assertion: ' . $e->getMessage());
    http_response_code(401);
    exit("This app is to be used through its proxy.\n");
} catch (authproxy\KeysUnavailable $e) {
    http_response_code(503);
    exit("The proxy's keys cannot be fetched.\n");
}

$name = ($user['name'] ?? '') ?: ($user['username'] ?? '') ?: ($user['email'] ?? '') ?: $user['sub'];
echo "Hello, $name!\nYour groups: " . (implode(', ', $user['groups']) ?: 'none') . "\n";
