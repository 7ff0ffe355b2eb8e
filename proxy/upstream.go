package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// An Upstream is an app behind us.
type Upstream struct {
	URL                *url.URL // http, https, h2c, without a path; or unix with the socket's path
	CAs                *x509.CertPool
	Timeout            time.Duration // for the response's header; 0 is none
	PreserveHost       bool
	InsecureSkipVerify bool
}

// Probe sends a GET request straight to the app, as nobody: nothing is judged, added or taken away. Its Host is host where the app
// is to see that. It is for looking at the app, and has connections of its own.
func (u *Upstream) Probe(ctx context.Context, host, path string, h http.Header) (*http.Response, error) {
	up, err := newUpstream(u)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: up.scheme, Host: up.host, Path: path}).String(), nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, h)
	if u.PreserveHost {
		r.Host = host
	}
	up.transport.DisableKeepAlives = true
	return up.transport.RoundTrip(r)
}

// upstream is an Upstream made ready. Copies made by withTimeout have connections of their own.
type upstream struct {
	conf      *Upstream
	scheme    string // of requests: http or https
	host      string // of requests
	origin    string // the default audience of assertions
	transport *http.Transport
	upgrades  *http.Transport // for WebSocket, which is HTTP/1.1 (RFC 6455)
}

func newUpstream(conf *Upstream) (*upstream, error) {
	u := &upstream{conf: conf, scheme: conf.URL.Scheme, host: conf.URL.Host, origin: conf.URL.Scheme + "://" + conf.URL.Host}
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy:                  nil, // HTTP_PROXY is for reaching the internet, not the app
		DialContext:            dialer.DialContext,
		DisableCompression:     true, // the client's Accept-Encoding is the one that counts
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        4 * time.Second, // below Node's 5 s: a connection that the app is about to close is not used again
		TLSHandshakeTimeout:    5 * time.Second,
		ExpectContinueTimeout:  time.Second,
		ResponseHeaderTimeout:  conf.Timeout,
		MaxResponseHeaderBytes: 1 << 20,
		TLSClientConfig:        &tls.Config{RootCAs: conf.CAs, InsecureSkipVerify: conf.InsecureSkipVerify, MinVersion: tls.VersionTLS12},
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	switch conf.URL.Scheme {
	case "http":
	case "https":
		t.Protocols.SetHTTP2(true)
	case "h2c": // HTTP/2 with prior knowledge (RFC 9113 §3.3)
		u.scheme = "http"
		u.origin = "http://" + conf.URL.Host
		t.Protocols.SetHTTP1(false)
		t.Protocols.SetUnencryptedHTTP2(true)
	case "unix":
		u.scheme, u.host = "http", "localhost"
		u.origin = "unix:" + conf.URL.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", conf.URL.Path)
		}
	default:
		return nil, fmt.Errorf("upstream %s: its scheme is none of http, https, h2c and unix", conf.URL)
	}
	u.transport = t
	u.upgrades = u.overHTTP1()
	return u, nil
}

func (u *upstream) overHTTP1() *http.Transport {
	t := u.transport.Clone()
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// withTimeout is the same upstream with another patience.
func (u *upstream) withTimeout(d time.Duration) *upstream {
	c := *u
	c.transport = u.transport.Clone()
	c.transport.ResponseHeaderTimeout = d
	c.upgrades = c.overHTTP1()
	return &c
}

// bufferPool lends the buffers that bodies are copied with.
type bufferPool struct{ pool sync.Pool }

var buffers = &bufferPool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}

func (b *bufferPool) Get() []byte  { return *b.pool.Get().(*[]byte) }
func (b *bufferPool) Put(v []byte) { b.pool.Put(&v) }
