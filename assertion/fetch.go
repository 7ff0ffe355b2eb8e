package assertion

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const fetchTimeout = 10 * time.Second // from dialling to the end of the body, unless the client has a timeout of its own

// CheckKeySetURL says why [FetchKeySet] would not fetch from a URL.
func CheckKeySetURL(from string) error {
	u, err := url.Parse(from)
	switch {
	case err != nil:
		return errors.New("assertion: the URL of the key set is none") // url.Error has it in it, secrets included
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("assertion: %q is no URL of a key set: want http:// or https://, a host, no user and no fragment", u.Redacted())
	}
	return nil
}

// FetchKeySet gets the key set that a proxy publishes at a URL: PREFIX/jwks.json, or /jwks.json of the admin listener. With
// plain http it must be reached through a network that is trusted: who answers in the proxy's place can be anybody.
//
// Redirects are followed within the origin of the URL only, whatever the client says. A nil client means one that goes
// through no HTTP proxy and keeps no connection. An answer of more than 256 KiB, or one that takes longer than the client's
// timeout, 10 seconds when it has none, is an error.
func FetchKeySet(ctx context.Context, client *http.Client, from string) (*KeySet, error) {
	if err := CheckKeySetURL(from); err != nil {
		return nil, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10}}
	if client != nil {
		c = *client
	}
	if c.Timeout == 0 {
		c.Timeout = fetchTimeout
	}
	c.CheckRedirect = sameOrigin
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the URL, which after a redirect is not the caller's
	}
	if err != nil {
		return nil, fmt.Errorf("assertion: the key set at %s: %w", from, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("assertion: the key set at %s: status %d", from, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, fmt.Errorf("assertion: the key set at %s: %w", from, err)
	}
	return ParseKeySet(body)
}

// sameOrigin keeps redirects within the origin. Another one has no say in whom the upstream believes.
func sameOrigin(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > 3:
		return errors.New("more than 3 redirects")
	case req.URL.Scheme != via[0].URL.Scheme || req.URL.Host != via[0].URL.Host:
		return errors.New("redirect to another origin")
	}
	return nil
}
