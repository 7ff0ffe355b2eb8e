package proxy

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// readForwarded finds out which host was asked for, how, and by whom: from the connection, and from X-Forwarded-Host, -Proto
// and -For when the peer is a trusted proxy. Such a proxy sends each at most once; what it sends and we cannot read is an
// error, because guessing would let a client choose.
func (p *Proxy) readForwarded(x *exchange) error {
	r := x.r
	name := r.Host
	x.proto = "http"
	if r.TLS != nil {
		x.proto = "https"
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil {
		x.client = peer.Addr().Unmap().WithZone("")
		x.chain = x.client.String()
	}
	if x.client.IsValid() && p.trusted(x.client) {
		proto, err := single(r.Header, "X-Forwarded-Proto")
		if err != nil {
			return err
		}
		switch proto {
		case "":
		case "http", "https":
			x.proto = proto
		default:
			return errors.New("X-Forwarded-Proto of a trusted proxy is neither http nor https")
		}
		forwardedHost, err := single(r.Header, "X-Forwarded-Host")
		if err != nil {
			return err
		}
		if forwardedHost != "" {
			name = forwardedHost
		}
		p.readChain(x)
	}
	x.host, err = canonicalHost(name, p.opts.PublicURL.Scheme)
	return err
}

// readChain walks X-Forwarded-For from right to left as long as the addresses are those of trusted proxies. The first that is
// not is the client; what stands to the left of it is hearsay and not passed on.
func (p *Proxy) readChain(x *exchange) {
	lines := x.r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		rest := lines[i]
		for rest != "" {
			var last string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				rest, last = "", rest
			}
			a, err := netip.ParseAddr(strings.TrimSpace(last))
			if err != nil || len(x.chain) > 512 {
				return
			}
			x.client = a.Unmap().WithZone("")
			x.chain = x.client.String() + ", " + x.chain
			if !p.trusted(x.client) {
				return
			}
		}
	}
}

func (p *Proxy) trusted(a netip.Addr) bool { return contains(p.opts.TrustedProxies, a) }

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) })
}

// single is the value of a header that may come at most once, and with one value.
func single(h http.Header, name string) (string, error) {
	switch values := h[name]; {
	case len(values) == 0:
		return "", nil
	case len(values) > 1 || strings.Contains(values[0], ","):
		return "", errors.New(name + " of a trusted proxy has more than one value")
	default:
		return strings.TrimSpace(values[0]), nil
	}
}

// canonicalHost is a Host in the form in which configured hosts are kept: lower case, without the scheme's default port.
func canonicalHost(host, scheme string) (string, error) {
	if host == "" {
		return "", errors.New("there is no Host") // RFC 9112 §3.2
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		case 'A' <= c && c <= 'Z':
			return canonicalHost(strings.ToLower(host), scheme)
		default:
			return "", errors.New("a character in Host is none of a host name")
		}
	}
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	if name, found := strings.CutSuffix(host, port); found && (strings.IndexByte(name, ':') < 0 || strings.HasSuffix(name, "]")) {
		return name, nil
	}
	return host, nil
}
