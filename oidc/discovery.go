package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

// metadata is what a discovery document says, checked (OIDC Discovery §3). It does not change once made.
// id_token_signing_alg_values_supported is read but never trusted: the accepted algorithm is configured.
type metadata struct {
	gooidc.ProviderConfig
	EndSessionURL string   `json:"end_session_endpoint"`
	RevocationURL string   `json:"revocation_endpoint"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	PromisesIss   bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207 §3
}

// A discovery is one try. meta and err are set when done is closed.
type discovery struct {
	done chan struct{}
	meta *metadata
	err  error
}

// provider is the last good metadata. While there is none it tries discovery, waiting at most 2 s, unless a try failed
// within the last second.
func (rp *RelyingParty) provider(ctx context.Context) (*metadata, error) {
	if m := rp.meta.Load(); m != nil {
		return m, nil
	}
	rp.mu.Lock()
	if m := rp.meta.Load(); m != nil {
		rp.mu.Unlock()
		return m, nil
	}
	if rp.failure != nil && rp.running == nil && rp.now().Sub(rp.failed) < time.Second {
		defer rp.mu.Unlock()
		return nil, rp.failure
	}
	d := rp.startDiscovery()
	rp.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.wait(ctx)
}

// reachable is provider for somebody who is about to be sent there: it asks whether the provider answers at all, for a second
// at most. Who goes to one that does not gets an error of the browser's and nowhere, and could not be signed in here anyway.
// Whatever it answers, it is there. Logins that begin together ask together.
func (rp *RelyingParty) reachable(ctx context.Context) (*metadata, error) {
	known := rp.meta.Load()
	if known == nil {
		return rp.provider(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	m, err := rp.renew(ctx)
	var u *Unavailable
	switch {
	case err == nil:
		return m, nil
	case errors.As(err, &u) && u.unreachable:
		return nil, err
	}
	return known, nil
}

// renew tries discovery even if there is metadata.
func (rp *RelyingParty) renew(ctx context.Context) (*metadata, error) {
	rp.mu.Lock()
	d := rp.startDiscovery()
	rp.mu.Unlock()
	return d.wait(ctx)
}

// startDiscovery returns the discovery under way, or begins one. The caller holds mu.
func (rp *RelyingParty) startDiscovery() *discovery {
	if rp.running != nil {
		return rp.running
	}
	d := &discovery{done: make(chan struct{})}
	rp.running = d
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), httpTimeout)
		defer cancel()
		d.meta, d.err = rp.discover(ctx)
		rp.mu.Lock()
		defer rp.mu.Unlock()
		rp.record(d.meta, d.err)
		rp.running = nil
		close(d.done)
	}()
	return d
}

func (d *discovery) wait(ctx context.Context) (*metadata, error) {
	select {
	case <-d.done:
		return d.meta, d.err
	case <-ctx.Done():
		return nil, unavailable("discovery", ctx.Err())
	}
}

// record keeps the outcome of a discovery. A failure leaves the last good metadata in use. What an operator must know is
// logged when it changes. The caller holds mu.
func (rp *RelyingParty) record(m *metadata, err error) {
	if err != nil {
		rp.failed, rp.failure = rp.now(), err
		if text := err.Error(); text != rp.announced {
			rp.announced = text
			rp.log.Warn("provider discovery failed", "issuer", rp.cfg.Issuer, "error", err)
		}
		return
	}
	before := rp.meta.Swap(m)
	if (before == nil || before.IssuerURL != m.IssuerURL) && m.IssuerURL != rp.cfg.Issuer {
		rp.log.Warn("the provider spells its issuer with another trailing slash; its spelling is used", "configured", rp.cfg.Issuer, "issuer", m.IssuerURL)
	}
	if algs := m.Algorithms; !rp.keysOnly && len(algs) > 0 && !slices.Contains(algs, rp.cfg.IDTokenAlg) && (before == nil || !slices.Equal(before.Algorithms, algs)) {
		rp.log.Warn("the provider does not offer to sign ID tokens with provider.id_token_alg", "id_token_alg", rp.cfg.IDTokenAlg,
			"offered", clean(strings.Join(algs, " "), 200), "hint", "set provider.id_token_alg to what it signs with")
	}
	if before == nil || rp.announced != "" {
		rp.log.Info("provider discovered", "issuer", m.IssuerURL)
	}
	rp.failure, rp.announced = nil, ""
}

// exactIssuer is the hint when there is something else than a discovery document. It may be an outage as well, a maintenance
// page for instance.
const exactIssuer = "is provider.issuer (or provider.domain) exactly the provider's issuer?"

// discover fetches the provider's metadata and checks it.
func (rp *RelyingParty) discover(ctx context.Context) (*metadata, error) {
	from := strings.TrimSuffix(rp.cfg.Issuer, "/") + "/.well-known/openid-configuration"
	body, err := rp.getDocument(ctx, "discovery", from, exactIssuer)
	if err != nil {
		var bad *Invalid
		if errors.As(err, &bad) {
			return nil, &Misconfigured{Reason: "discovery", Detail: bad.Detail, Err: err}
		}
		return nil, err
	}
	if _, err := parseObject(body); err != nil {
		// Often a maintenance page or a captive portal, so it counts as an outage.
		return nil, unavailable("discovery", fmt.Errorf("GET %s: %w%s", from, err, hint(exactIssuer)))
	}
	m := new(metadata)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, &Misconfigured{Reason: "discovery", Detail: "the discovery document has members of the wrong type", Err: err}
	}
	if !rp.isIssuer(m.IssuerURL) { // OIDC Discovery §4.3: exactly the issuer that was asked
		return nil, &Misconfigured{
			Reason: "issuer_mismatch",
			Detail: fmt.Sprintf("the discovery document is of issuer %q, configured is %q", clean(m.IssuerURL, 200), rp.cfg.Issuer),
			Hint:   "set provider.issuer (or provider.domain) to the issuer of the provider, character for character",
			Err:    &gooidc.IssuerMismatchError{Provided: rp.cfg.Issuer, Discovered: m.IssuerURL},
		}
	}
	for _, e := range []struct {
		name, url string
		required  bool
	}{
		{"authorization_endpoint", m.AuthURL, !rp.keysOnly},
		{"token_endpoint", m.TokenURL, !rp.keysOnly},
		{"jwks_uri", m.JWKSURL, true},
		{"userinfo_endpoint", m.UserInfoURL, rp.cfg.Userinfo},
		{"end_session_endpoint", m.EndSessionURL, false},
		{"revocation_endpoint", m.RevocationURL, false},
	} {
		if e.url == "" && !e.required {
			continue
		}
		if e.url == "" {
			return nil, &Misconfigured{Reason: "discovery", Detail: "the discovery document has no " + e.name, Hint: "check that the issuer is an OpenID Provider"}
		}
		if err := checkEndpoint(e.url, rp.issuer); err != nil {
			return nil, &Misconfigured{Reason: "discovery", Detail: e.name + " " + err.Error(), Hint: "endpoints of the provider must be https", Err: err}
		}
	}
	return m, nil
}

// isIssuer reports whether discovered is the configured issuer. A trailing slash more or less is forgiven when the issuer
// has no path: "https://acme.eu.auth0.com" is a common way to write Auth0's "https://acme.eu.auth0.com/". With a path the
// two may be different tenants.
func (rp *RelyingParty) isIssuer(discovered string) bool {
	if discovered == rp.cfg.Issuer {
		return true
	}
	hostOnly := rp.issuer.Path == "" || rp.issuer.Path == "/"
	return hostOnly && strings.TrimSuffix(discovered, "/") == strings.TrimSuffix(rp.cfg.Issuer, "/")
}
