package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keyKind is the kind of JWK that an algorithm needs (RFC 7518 §3.1, RFC 8037 §3.1).
type keyKind struct {
	kty, crv string // crv "" for RSA
	hash     crypto.Hash
}

// keyKinds are the accepted algorithms: signatures only. A MAC would need a secret that the provider shares, and "none" is
// not one (RFC 8725 §3.1).
var keyKinds = map[string]keyKind{
	"RS256": {"RSA", "", crypto.SHA256}, "RS384": {"RSA", "", crypto.SHA384}, "RS512": {"RSA", "", crypto.SHA512},
	"PS256": {"RSA", "", crypto.SHA256}, "PS384": {"RSA", "", crypto.SHA384}, "PS512": {"RSA", "", crypto.SHA512},
	"ES256": {"EC", "P-256", crypto.SHA256}, "ES384": {"EC", "P-384", crypto.SHA384}, "ES512": {"EC", "P-521", crypto.SHA512},
	"EdDSA": {"OKP", "Ed25519", crypto.SHA512},
}

const (
	maxKeys       = 100              // of a key set that are looked at
	maxTries      = 20               // keys tried for one token
	keysFresh     = 10 * time.Minute // a revoked key is believed no longer than this, unless the provider is down
	missEvery     = 30 * time.Second // between fetches because of tokens that no key verifies
	failedEvery   = 30 * time.Second // between tries to renew keys that are still of use
	failedWithout = time.Second      // between tries while there are no keys at all
)

// A key is a public key of the provider that fits the configured algorithm.
type key struct {
	id     string // kid; only ever compared
	public crypto.PublicKey
}

// A keySet holds the provider's keys. No lock is held during a fetch; one fetch has many waiters, each of which leaves with
// its own context. The last good keys stay in use while fetches fail.
type keySet struct {
	alg string
	now func() time.Time
	get func(ctx context.Context, url string) ([]byte, error)

	mu      sync.Mutex
	good    *keys     // the last good ones; nil before the first
	running *fetch    // the fetch under way, or nil
	failed  time.Time // when a fetch last failed
	failure error     // how; nil after a success
	missed  time.Time // when a token that no key verified last made us fetch; zero: never
}

// keys are what one successful fetch brought. They do not change.
type keys struct {
	list []key
	url  string
	at   time.Time
}

// A fetch is one request for the keys. keys and err are set when done is closed.
type fetch struct {
	done chan struct{}
	keys *keys
	err  error
}

// errNoKey says that no key of the provider verifies a signature.
var errNoKey = errors.New("no key of the provider verifies the signature")

// verify returns the payload of jws once a key from url verifies its signature. It fetches the keys when they are old, and
// when no key fits: the first time at once, because a provider may sign with a key published a moment ago, from then on at
// most every 30 s, because anybody can send us tokens with made-up key IDs.
func (s *keySet) verify(ctx context.Context, url string, jws *jose.JSONWebSignature) ([]byte, error) {
	tried, err := s.current(ctx, url)
	for err == nil {
		if payload := tried.verify(jws); payload != nil {
			return payload, nil
		}
		next, err := s.newer(ctx, url, tried)
		switch {
		case err == nil:
			tried = next
		case tried.has(jws.Signatures[0].Header.KeyID):
			return nil, errNoKey // the key was there, so that newer ones would hardly help
		default:
			return nil, err
		}
	}
	return nil, err
}

// verify returns the payload when one of the keys verifies the signature, else nil. A kid picks the keys to try, among them
// those without one; without a kid in the header all are tried (both are optional: RFC 7515 §4.1.4, RFC 7517 §4.5).
func (k *keys) verify(jws *jose.JSONWebSignature) []byte {
	id := jws.Signatures[0].Header.KeyID
	tries := 0
	for _, key := range k.list {
		if id != "" && key.id != "" && key.id != id {
			continue
		}
		if tries++; tries > maxTries {
			break
		}
		if payload, err := jws.Verify(key.public); err == nil {
			return payload
		}
	}
	return nil
}

func (k *keys) has(id string) bool {
	return id != "" && slices.ContainsFunc(k.list, func(k key) bool { return k.id == id })
}

// current returns keys no older than keysFresh, or the last good ones when newer ones cannot be had.
func (s *keySet) current(ctx context.Context, url string) (*keys, error) {
	s.mu.Lock()
	good, failure := s.good, s.failure
	hold := failedWithout
	if good != nil {
		hold = failedEvery
	}
	var f *fetch
	switch {
	case good != nil && good.url == url && s.now().Sub(good.at) < keysFresh:
	case failure != nil && s.now().Sub(s.failed) < hold:
	default:
		f = s.start(url)
	}
	s.mu.Unlock()
	if f != nil {
		fetched, err := f.wait(ctx)
		if err == nil {
			return fetched, nil
		}
		failure = err
	}
	if good == nil {
		return nil, failure
	}
	return good, nil
}

// newer returns keys newer than those that were tried, fetching them if that is allowed.
func (s *keySet) newer(ctx context.Context, url string, tried *keys) (*keys, error) {
	s.mu.Lock()
	f := s.running
	switch {
	case f != nil:
	case s.good != tried:
		defer s.mu.Unlock()
		return s.good, nil
	case s.now().Sub(s.missed) >= missEvery:
		s.missed = s.now()
		f = s.start(url)
	case s.failure != nil:
		defer s.mu.Unlock()
		return nil, s.failure
	default:
		defer s.mu.Unlock()
		return nil, errNoKey
	}
	s.mu.Unlock()
	return f.wait(ctx)
}

// start returns the fetch under way, or begins one. The caller holds mu.
func (s *keySet) start(url string) *fetch {
	if s.running != nil {
		return s.running
	}
	f := &fetch{done: make(chan struct{})}
	s.running = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), httpTimeout)
		defer cancel()
		body, err := s.get(ctx, url)
		var list []key
		if err == nil {
			list, err = parseKeys(body, s.alg)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			f.keys = &keys{list, url, s.now()}
			s.good, s.failure = f.keys, nil
		} else {
			f.err = err
			s.failed, s.failure = s.now(), err
		}
		s.running = nil
		close(f.done)
	}()
	return f
}

func (f *fetch) wait(ctx context.Context) (*keys, error) {
	select {
	case <-f.done:
		return f.keys, f.err
	case <-ctx.Done():
		return nil, unavailable("keys", ctx.Err())
	}
}

// fetchKeys gets the provider's JWK set.
func (rp *RelyingParty) fetchKeys(ctx context.Context, url string) ([]byte, error) {
	body, err := rp.getDocument(ctx, "keys", url, "")
	var bad *Invalid
	if errors.As(err, &bad) {
		return nil, unavailable("keys", err)
	}
	return body, err
}

// parseKeys reads the keys of a JWK set that are fit for alg (RFC 7517 §5). The others are left out, broken ones too, so
// that they do not spoil the good ones. A list without a fit key is believed: the provider may have revoked them all.
func parseKeys(body []byte, alg string) ([]key, error) {
	set, err := parseObject(body)
	if err != nil {
		return nil, unavailable("keys", fmt.Errorf("the key set: %w", err))
	}
	var all []json.RawMessage
	if err := json.Unmarshal(set["keys"], &all); err != nil || all == nil {
		return nil, unavailable("keys", errors.New("the key set has no list of keys"))
	}
	var fit []key
	for _, raw := range all[:min(len(all), maxKeys)] {
		if k, err := parseKey(raw, alg); err == nil {
			fit = append(fit, k)
		}
	}
	return fit, nil
}

// parseKey reads one JWK and refuses it unless it may verify alg. Certificates in it are not looked at.
func parseKey(raw []byte, alg string) (key, error) {
	var k struct {
		Kty, Crv, Use, Alg, Kid string
		Ops                     []string `json:"key_ops"`
		N, E, X, Y              string
	}
	if _, err := parseObject(raw); err != nil {
		return key{}, err
	}
	if err := json.Unmarshal(raw, &k); err != nil {
		return key{}, err
	}
	kind := keyKinds[alg]
	switch {
	case k.Kty != kind.kty || k.Crv != kind.crv:
		return key{}, fmt.Errorf("key type %q, curve %q", k.Kty, k.Crv)
	case k.Use != "" && k.Use != "sig": // RFC 7517 §4.2
		return key{}, fmt.Errorf("use %q", k.Use)
	case k.Ops != nil && !slices.Contains(k.Ops, "verify"): // RFC 7517 §4.3
		return key{}, fmt.Errorf("key_ops %q", k.Ops)
	case k.Alg != "" && k.Alg != alg: // RFC 8725 §3.1: one key, one algorithm
		return key{}, fmt.Errorf("algorithm %q", k.Alg)
	}
	var public crypto.PublicKey
	var err error
	switch kind.kty {
	case "RSA":
		public, err = rsaKey(k.N, k.E)
	case "EC":
		public, err = ecKey(kind.crv, k.X, k.Y)
	default:
		public, err = ed25519Key(k.X)
	}
	return key{k.Kid, public}, err
}

// rsaKey refuses moduli below 2048 bits (RFC 7518 §3.3) and above 8192, which only cost time, and exponents that are even or 1.
func rsaKey(n64, e64 string) (*rsa.PublicKey, error) {
	n, err := base64.RawURLEncoding.DecodeString(n64)
	if err != nil {
		return nil, err
	}
	e, err := base64.RawURLEncoding.DecodeString(e64)
	if err != nil {
		return nil, err
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < 2048 || bits > 8192 {
		return nil, fmt.Errorf("RSA modulus of %d bits", bits)
	}
	if exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Cmp(big.NewInt(3)) < 0 {
		return nil, errors.New("RSA exponent out of range")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// ecKey refuses points that are not on the curve, and coordinates of another length than its (RFC 7518 §6.2.1.2).
func ecKey(crv, x64, y64 string) (*ecdsa.PublicKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
	point := []byte{4} // SEC 1 §2.3.3: uncompressed
	for _, s := range []string{x64, y64} {
		c, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return nil, err
		}
		if len(c) != (curve.Params().BitSize+7)/8 {
			return nil, fmt.Errorf("coordinate of %d bytes", len(c))
		}
		point = append(point, c...)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

func ed25519Key(x64 string) (ed25519.PublicKey, error) {
	x, err := base64.RawURLEncoding.DecodeString(x64)
	if err != nil {
		return nil, err
	}
	if len(x) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("Ed25519 key of %d bytes", len(x))
	}
	return x, nil
}
