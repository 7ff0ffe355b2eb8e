package assertion_test

import (
	"crypto/ecdsa"
	"fmt"
	"time"

	"authproxy/assertion"
	"authproxy/identity"
)

// What an upstream does with the header of a request. The key set is the one at /jwks.json, fetched from the proxy and kept.
func ExampleVerify() {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	key, err := assertion.DeriveKey([]byte("a session key of at least 32 bytes"))
	if err != nil {
		panic(err)
	}
	signer, err := assertion.NewSigner("https://app.example.com", 2*time.Minute, []*ecdsa.PrivateKey{key})
	if err != nil {
		panic(err)
	}
	who := &identity.Identity{Issuer: "https://acme.eu.auth0.com/", Subject: "auth0|ada", Groups: []string{"staff"}}
	token, _, err := signer.Mint(who, nil, "session-1", "http://127.0.0.1:5000", now)
	if err != nil {
		panic(err)
	}

	jwks, _ := signer.JWKS()
	claims, err := assertion.Verify(token, jwks, "https://app.example.com", "http://127.0.0.1:5000", now)
	fmt.Println(claims["sub"], claims["groups"], err)
	_, err = assertion.Verify(token, jwks, "https://app.example.com", "http://127.0.0.1:6000", now)
	fmt.Println(err)
	// Output:
	// auth0|ada [staff] <nil>
	// assertion: aud is "http://127.0.0.1:5000", want "http://127.0.0.1:6000"
}
