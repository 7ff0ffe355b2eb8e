package assertion

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"
)

// MessageOptions say what [VerifyMessage] expects. Algorithm and Now are required.
type MessageOptions struct {
	Algorithm string        // the one that is accepted
	KeyID     string        // the one that is accepted; "" means any
	Authority string        // what the signer sent as Host; "" means the request's Host
	Headers   []string      // headers that must be signed when the request has them, such as those the app believes
	Now       time.Time     // when the request came
	Leeway    time.Duration // clock difference tolerated; zero means none

	// Nonce, if it is not nil, gets the nonce of a signature that is good, and the time until which it has to be remembered.
	// An error of it, for a nonce that was there before, refuses the message.
	Nonce func(nonce string, until time.Time) error
}

// VerifyMessage checks, as an upstream should, that req is signed as [MessageSigner.Sign] does: by key, which is a shared
// key ([]byte), an ed25519.PublicKey, an *ecdsa.PublicKey or a [KeyFinder] for one of the latter; with one signature, of our label and tag; over method,
// authority, path, query and the headers of opts that are there; and that the signature is good at this time.
//
// It does not remember nonces: unless opts.Nonce does, a request may be repeated while its signature is good, a minute and
// twice the leeway at most. It says nothing about the body and about headers that are not in opts.Headers.
func VerifyMessage(req *http.Request, key any, opts MessageOptions) error {
	inputs, signatures := req.Header.Values("Signature-Input"), req.Header.Values("Signature")
	if len(inputs) != 1 || len(signatures) != 1 {
		return fmt.Errorf("assertion: %d Signature-Input and %d Signature fields, want one of each", len(inputs), len(signatures))
	}
	in, err := parseSignatureInput(inputs[0], Label)
	if err != nil {
		return err
	}
	sig, err := parseSignature(signatures[0], Label)
	if err != nil {
		return err
	}
	// RFC 9421 §3.2: what a signature has to cover and say is the verifier's decision, not the message's.
	switch {
	case in.alg != opts.Algorithm:
		return fmt.Errorf("assertion: alg is %q, want %q", in.alg, opts.Algorithm)
	case in.tag != Label:
		return fmt.Errorf("assertion: tag is %q, want %q", in.tag, Label)
	case opts.KeyID != "" && in.keyID != opts.KeyID:
		return fmt.Errorf("assertion: keyid is %q, want %q", in.keyID, opts.KeyID)
	case in.nonce == "":
		return errors.New("assertion: no nonce")
	}
	created, expires := time.Unix(in.created, 0), time.Unix(in.expires, 0)
	switch {
	case in.created == 0 || in.expires <= in.created || in.expires > in.created+messageLife:
		return fmt.Errorf("assertion: created and expires are not %d seconds apart at most", messageLife)
	case opts.Now.Before(created.Add(-opts.Leeway)):
		return fmt.Errorf("assertion: signed %s in the future", created.Sub(opts.Now))
	case opts.Now.After(expires.Add(opts.Leeway)):
		return fmt.Errorf("assertion: the signature expired %s ago", opts.Now.Sub(expires))
	}
	for _, c := range derived {
		if !slices.Contains(in.components, c) {
			return fmt.Errorf("assertion: component %q is not signed", c.name)
		}
	}
	for _, name := range opts.Headers {
		c := component{name: strings.ToLower(name)}
		if len(req.Header.Values(name)) > 0 && !slices.Contains(in.components, c) {
			return fmt.Errorf("assertion: component %q is not signed", c.name)
		}
	}
	scheme, authority := "http", opts.Authority
	if req.TLS != nil {
		scheme = "https"
	}
	if authority == "" {
		authority = req.Host
	}
	base, err := signatureBase(in.components, in.text, componentsOf(req, scheme, authority))
	if err != nil {
		return err
	}
	if find, ok := key.(KeyFinder); ok {
		if key, err = find(in.keyID); err != nil {
			return err
		}
	}
	if err := verifySignature(opts.Algorithm, key, base, sig); err != nil {
		return err
	}
	if opts.Nonce != nil {
		return opts.Nonce(in.nonce, expires.Add(opts.Leeway))
	}
	return nil
}

// verifySignature checks sig over base. The type of the key belongs to the algorithm: nothing signed with one kind of key can
// be verified with another.
func verifySignature(algorithm string, key any, base, sig []byte) error {
	var ok bool
	switch k := key.(type) {
	case []byte:
		if algorithm != HMACSHA256 || len(k) < minSecret {
			return fmt.Errorf("assertion: not a shared key for %q", algorithm)
		}
		ok = hmac.Equal(hmacSHA256(k, base), sig)
	case ed25519.PublicKey:
		if algorithm != Ed25519 || len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("assertion: not a public key for %q", algorithm)
		}
		ok = ed25519.Verify(k, base, sig)
	case *ecdsa.PublicKey:
		if algorithm != ECDSAP256SHA256 || k == nil || k.Curve != elliptic.P256() {
			return fmt.Errorf("assertion: not a public key for %q", algorithm)
		}
		sum := sha256.Sum256(base)
		ok = len(sig) == 64 && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	default:
		return fmt.Errorf("assertion: %T is not a key for %q", key, algorithm)
	}
	if !ok {
		return errors.New("assertion: the signature does not verify")
	}
	return nil
}
