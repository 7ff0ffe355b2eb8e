// Package upstream is for apps behind authproxy that are written in Go. It tells them who is calling.
//
// It believes the assertion, the signed statement that the proxy sends with each request of a signed-in user, and nothing
// else: whoever reaches the app around the proxy can send any other header. The usual way is to make one [Verifier] when
// the app starts, to wrap handlers with [Verifier.Require], and to ask [FromContext] in them.
//
//	verifier, err := upstream.NewVerifier("http://127.0.0.1:9090/jwks.json", "https://app.example.com", "http://127.0.0.1:5000")
//	if err != nil {
//		log.Fatal(err)
//	}
//	http.ListenAndServe("127.0.0.1:5000", verifier.Require(app))
//
// Who may do what in the app is for the app to decide, beyond what the proxy's routes have decided already. An assertion
// may be presented again while it lives; [Signature] narrows that down to the one request that was signed.
package upstream

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"authproxy/assertion"
)

const usualLeeway = 30 * time.Second

// The errors that an app may want to tell apart. All others are about an assertion or a signature that is not good.
var (
	ErrNone = errors.New("upstream: no assertion came with the request")      // nobody is signed in, or the request came around the proxy
	ErrKeys = errors.New("upstream: the keys of the proxy cannot be fetched") // nothing can be said about the assertion
)

// A Verifier checks the assertions of one proxy for one app. Make it with [NewVerifier] and set its fields before first use;
// from then on it is safe for concurrent use.
//
// The keys are fetched when the first assertion comes, again when they are 5 minutes old, and when an assertion names a key
// that is not among them, for that reason every 10 seconds at most. One fetch serves all who wait. While fetches fail, the
// last good keys stay in use.
type Verifier struct {
	Client    *http.Client     // fetches the keys; nil is as [assertion.FetchKeySet] says
	Now       func() time.Time // nil means time.Now
	Leeway    time.Duration    // clock difference tolerated; zero means 30 seconds
	Header    string           // identity.assertion.header of the proxy; "" means X-Authproxy-Assertion
	Signature *Signature       // the message signature that requests must have too; nil means none
	Log       *slog.Logger     // is told why requests are refused and keys cannot be fetched; nil means nobody is

	issuer, audience string
	keys             keys
}

// NewVerifier returns a Verifier of assertions that the proxy with the public_url issuer makes for audience: scheme and
// host of this app as the proxy's configuration has them under upstream, unless audience is set there. The proxy's keys
// are at jwksURL. With plain http it must be reached through a trusted network.
//
// Nothing is fetched yet: the proxy may start after the app.
func NewVerifier(jwksURL, issuer, audience string) (*Verifier, error) {
	switch {
	case issuer == "":
		return nil, errors.New("upstream: no issuer")
	case audience == "":
		return nil, errors.New("upstream: no audience")
	}
	if err := assertion.CheckKeySetURL(jwksURL); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	v := &Verifier{issuer: issuer, audience: audience}
	v.keys = keys{now: v.now, get: func(ctx context.Context) (*assertion.KeySet, error) {
		set, err := assertion.FetchKeySet(ctx, v.Client, jwksURL)
		if err != nil && v.Log != nil {
			v.Log.Warn("the keys of the proxy cannot be fetched", "error", err.Error())
		}
		return set, err
	}}
	return v, nil
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

func (v *Verifier) leeway() time.Duration {
	if v.Leeway != 0 {
		return v.Leeway
	}
	return usualLeeway
}

func (v *Verifier) header() string {
	if v.Header != "" {
		return v.Header
	}
	return "X-Authproxy-Assertion"
}

// Verify checks an assertion, as [assertion.Verify] does.
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	find := func(keyID string) (crypto.PublicKey, error) { return v.keys.find(ctx, keyID) }
	claims, err := assertion.VerifyWith(token, find, assertion.Expected{Issuer: v.issuer, Audience: v.audience, Now: v.now(), Leeway: v.leeway()})
	if err != nil {
		return nil, err
	}
	return identityOf(claims), nil
}

// Identify says who sent a request. Its error is [ErrNone] when there is no assertion: an app with pages for everybody may
// go on then. Two assertions are none to believe.
func (v *Verifier) Identify(r *http.Request) (*Identity, error) {
	values := r.Header.Values(v.header())
	switch {
	case len(values) == 0:
		return nil, ErrNone
	case len(values) > 1:
		return nil, fmt.Errorf("upstream: %d assertions came with the request, want one", len(values))
	}
	who, err := v.Verify(r.Context(), values[0])
	if err != nil {
		return nil, err
	}
	if v.Signature != nil {
		if err := v.Signature.verify(v, r); err != nil {
			return nil, err
		}
	}
	return who, nil
}

// Require lets requests of signed-in users through to next, which learns from [FromContext] who they are. Others get 401,
// or 503 while the keys of the proxy cannot be fetched. The request is passed on as it came: its other headers are no better
// than before, except those that a [Signature] covers.
func (v *Verifier) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := v.Identify(r)
		if err == nil {
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), who)))
			return
		}
		status, text := http.StatusUnauthorized, "This app is to be used through its proxy."
		if errors.Is(err, ErrKeys) {
			status, text = http.StatusServiceUnavailable, "Who you are cannot be verified at the moment."
			w.Header().Set("Retry-After", "5")
		}
		if v.Log != nil {
			v.Log.Info("request refused", "status", status, "error", err.Error())
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, text, status)
	})
}
