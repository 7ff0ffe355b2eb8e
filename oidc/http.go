package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	httpTimeout = 5 * time.Second // from dialling to the end of the body
	maxBody     = 1 << 20         // bytes, after decompression
)

// newClients returns the client for documents, which follows redirects within their origin, and the one for requests with
// secrets, which follows none. They share their connections.
func newClients(cas *x509.CertPool) (documents, plain *http.Client) {
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: httpTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cas, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        32,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	documents = &http.Client{Transport: transport, Timeout: httpTimeout, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > 3 {
			return errors.New("more than 3 redirects")
		}
		if req.URL.Scheme != via[0].URL.Scheme || req.URL.Host != via[0].URL.Host {
			return errors.New("redirect to another origin")
		}
		return nil
	}}
	plain = &http.Client{Transport: transport, Timeout: httpTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return documents, plain
}

// An answer is a response of the provider, read to its end.
type answer struct {
	status int
	date   time.Time // of the Date header; zero without one
	body   []byte
}

// do sends req. The error is *Unavailable when there is no answer, or one that says to try later; other statuses are the
// caller's to judge.
func (rp *RelyingParty) do(ctx context.Context, op string, client *http.Client, req *http.Request) (*answer, error) {
	began := time.Now()
	a, err := rp.roundTrip(ctx, op, client, req)
	if rp.cfg.Observe != nil {
		rp.cfg.Observe(op, time.Since(began), err)
	}
	return a, err
}

func (rp *RelyingParty) roundTrip(ctx context.Context, op string, client *http.Client, req *http.Request) (*answer, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "authproxy")
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which after a redirect is not ours
		}
		e := unavailable(op, err)
		e.unreachable = ctx.Err() == nil
		return nil, e
	}
	defer resp.Body.Close()
	if s := resp.StatusCode; s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout {
		return nil, &Unavailable{Op: op, Err: fmt.Errorf("status %d", s), RetryAfter: retryAfter(resp.Header, rp.now())}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, unavailable(op, fmt.Errorf("reading the answer: %w", err))
	}
	if len(body) > maxBody {
		return nil, invalid("malformed", "%s: the answer is longer than %d bytes", op, maxBody)
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		date = time.Time{}
	}
	return &answer{resp.StatusCode, date, body}, nil
}

// getDocument fetches a public document. When it is not there, todo is what an operator can do.
func (rp *RelyingParty) getDocument(ctx context.Context, op, from, todo string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, from, nil)
	if err != nil {
		return nil, unavailable(op, err)
	}
	a, err := rp.do(ctx, op, rp.documents, req)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, unavailable(op, fmt.Errorf("GET %s: status %d%s", clean(from, 300), a.status, hint(todo)))
	}
	return a.body, nil
}

const usualRetry = 5 * time.Second

func unavailable(op string, err error) *Unavailable {
	return &Unavailable{Op: op, Err: err, RetryAfter: usualRetry}
}

// retryAfter is how long the provider asks us to wait: Retry-After (RFC 9110 §10.2.3, seconds or a date) or
// X-RateLimit-Reset (Auth0, Unix seconds), from 1 s to 5 min.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const longest = 5 * time.Minute
	wait := usualRetry
	if n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 32); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		wait = at.Sub(now)
	} else if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		wait = time.Unix(at, 0).Sub(now)
	}
	return min(max(wait, time.Second), longest)
}

// checkEndpoint refuses URLs that we must not call or send a browser to: anything but https, except http on a loopback
// host when the issuer is http too.
func checkEndpoint(raw string, issuer *url.URL) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%q is not an absolute URL", clean(raw, 200))
	case u.User != nil:
		return errors.New("has a user name in it")
	case strings.Contains(raw, "#"):
		return fmt.Errorf("%q has a fragment", clean(raw, 200))
	case u.Scheme == "https", u.Scheme == "http" && issuer.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http" && issuer.Scheme == "http":
		return fmt.Errorf("%q is http, which is for loopback hosts only", clean(raw, 200))
	default:
		return fmt.Errorf("%q is not https", clean(raw, 200))
	}
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
