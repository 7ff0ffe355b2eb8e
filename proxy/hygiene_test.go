package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"authproxy/proxy"
)

// spell returns a name with other characters between its words, as HDR-05 asks for.
func spell(name string, between string, upper func(string) string) string {
	return upper(strings.ReplaceAll(name, "-", between))
}

// HDR-04, HDR-05, HDR-26, FWD-01, FWD-13, TLS-01, SRF-07: every spelling of every name that is ours.
func TestReservedNamesAreRemovedInEverySpelling(t *testing.T) {
	r := newRig(t, nil)
	for id, names := range map[string][]string{
		"HDR-01": {"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Auth-Name", "X-Authproxy-Assertion"},
		"HDR-16": {"X-Authproxy-Skip", "X-Request-Id"},
		"HDR-26": {"X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"},
		"FWD-01": {"X-Forwarded-Uri", "X-Original-Uri", "X-Forwarded-Path", "X-Envoy-Original-Path"},
		"FWD-13": {"X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP"},
		"RED-17": {"X-Auth-Request-Redirect", "X-Auth-Request-User"},
		"SRF-07": {"Proxy"},
		"TLS-01": {"X-Ssl-Client-S-Dn", "X-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "Ssl-Client-Verify", "Client-Cert"},
		"HDR-04": {"Remote-User", "X-Remote-User", "X-Webauth-User", "Tailscale-User-Login", "Cf-Access-Jwt-Assertion", "X-Amzn-Oidc-Identity", "X-Goog-Iap-Jwt-Assertion", "X-Ms-Client-Principal", "Oidc-Claim-Sub"},
	} {
		t.Run("HDR-05 "+id, func(t *testing.T) {
			for _, name := range names {
				for _, c := range "-!#$%&'*+.^_`|~" { // RFC 9110 §5.6.2
					for _, upper := range []func(string) string{http.CanonicalHeaderKey, strings.ToLower, strings.ToUpper} {
						spelled := spell(name, string(c), upper)
						h := http.Header{spelled: {"evil"}, "X-Other": {"kept"}}
						r.CleanRequest(h)
						if diff := cmp.Diff(http.Header{"X-Other": {"kept"}}, h); diff != "" {
							t.Errorf("%s: -want +got\n%s", spelled, diff)
						}
					}
				}
			}
		})
	}
}

func TestHeadersOfOthersStay(t *testing.T) {
	r := newRig(t, nil)
	h := http.Header{}
	for _, name := range []string{"Accept", "Authorization", "Cookie", "X-Forward", "X-Forwardeduser", "X-Authproxyish", "X-Csrf-Token", "X-Requested-With", "X-Auth-Token", "Signature", "Signature-Input", "X-Originals", "Proxy-Status", "Origin", "Te"} {
		h[name] = []string{"a", "b"}
	}
	want := h.Clone()
	r.CleanRequest(h)
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The form of names is that of the definition: lower case, and everything else than a letter or digit is the same.
func FuzzFold(f *testing.F) {
	f.Add("X-Forwarded_User")
	f.Add("x.forwarded!user")
	f.Add(strings.Repeat("A_", 60))
	r := newRig(f, nil)
	f.Fuzz(func(t *testing.T, name string) {
		got := proxy.Fold(name)
		if len(got) != len(name) || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || proxy.Fold(got) != got {
			t.Errorf("Fold(%q) = %q", name, got)
		}
		one, other := http.Header{name: {"x"}}, http.Header{got: {"x"}}
		r.CleanRequest(one)
		r.CleanRequest(other)
		if len(one) != len(other) {
			t.Errorf("%q and %q are told apart", name, got)
		}
		if name == "" || reservedNames(got) && len(one) != 0 {
			if len(one) != 0 {
				t.Errorf("%q passes", name)
			}
		}
	})
}

// cookiePairs are the pairs of Cookie lines without the white space between them (RFC 6265 §5.4), and without empty ones.
func cookiePairs(lines []string) (all []string) {
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" {
				all = append(all, pair)
			}
		}
	}
	return all
}

func ownCookie(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.TrimRight(name, " \t")
	return name == "__Host-authproxy" || strings.HasPrefix(name, "__Host-authproxy-login-")
}

// Nothing of ours remains, everything else stays in its order and byte for byte, and a line without ours is not touched.
func checkStrip(t *testing.T, lines []string) {
	t.Helper()
	h := http.Header{"Cookie": slices.Clone(lines)}
	proxy.Strip("__Host-authproxy", h)
	got := cookiePairs(h["Cookie"])
	want := slices.DeleteFunc(cookiePairs(lines), ownCookie)
	if !slices.Equal(got, want) {
		t.Errorf("of %q remains %q, want %q", lines, got, want)
	}
	for _, line := range h["Cookie"] {
		if strings.Trim(line, " \t") == "" && !slices.Contains(lines, line) {
			t.Errorf("of %q an empty Cookie remains: %q", lines, h["Cookie"])
		}
	}
	for _, line := range lines {
		if !strings.Contains(line, "__Host-authproxy") && !slices.Contains(h["Cookie"], line) {
			t.Errorf("the line %q, which has none of our cookies, became one of %q", line, h["Cookie"])
		}
	}
}

func FuzzCookieStrip(f *testing.F) {
	for _, row := range cookieLines {
		f.Add(row.lines)
	}
	f.Fuzz(func(t *testing.T, lines string) { checkStrip(t, strings.Split(lines, "\n")) })
}

var cookieLines = []struct{ id, lines, want string }{
	{"HDR-17", "a=1; __Host-authproxy=x; __Host-authproxy-login-abc=y; b=2", "a=1; b=2"},
	{"CKE-20", `__Host-authproxyX=1; X__Host-authproxy=2; a="x; __Host-authproxy=3"; __Host-authproxy-=4; __Host-authproxy-1a=5`, `__Host-authproxyX=1; X__Host-authproxy=2; a="x; __Host-authproxy-=4; __Host-authproxy-1a=5`},
	{"CKE-19", "a=1\n__Host-authproxy=x\nb=2; __Host-authproxy-login-q=y; c=3", "a=1\nb=2; c=3"},
	{"CKE-20", "__Host-authproxy=x", ""},
	{"CKE-20", "__Host-authproxy=x;b=2", "b=2"},
	{"CKE-20", "a=1;  __Host-authproxy = x ;\tb==2=; c", "a=1;\tb==2=; c"},
	{"CKE-20", "__host-authproxy=x; __HOST-AUTHPROXY=y", "__host-authproxy=x; __HOST-AUTHPROXY=y"},
	{"CKE-08", "__Host-authproxy=x; a=1; __Host-authproxy=y", "a=1"},
	{"CKE-20", ";a=1;;\n__Host-authproxy=x", ";a=1;;"},
	{"CKE-20", "\r;__Host-authproxy", "\r"}, // net/http lets none in
	{"CKE-20", "a=ü\x80 \"; __Host-authproxy=x", "a=ü\x80 \""},
	{"CKE-05", strings.Repeat("a=1; ", 3001) + "__Host-authproxy=x", strings.TrimSuffix(strings.Repeat("a=1; ", 3001), "; ")},
}

func TestOurCookiesAreTakenOutAndOthersStayAsTheyAre(t *testing.T) {
	for _, row := range cookieLines {
		t.Run(row.id+" "+row.lines[:min(40, len(row.lines))], func(t *testing.T) {
			lines := strings.Split(row.lines, "\n")
			checkStrip(t, lines)
			h := http.Header{"Cookie": lines}
			proxy.Strip("__Host-authproxy", h)
			if got := strings.Join(h["Cookie"], "\n"); got != row.want {
				t.Errorf("of %q remains %q, want %q", row.lines, got, row.want)
			}
		})
	}
}

// CKE-08: of cookies with one name we know that there are two, wherever they stand.
func FuzzCookieValues(f *testing.F) {
	f.Add("a=1; s=x; s=y", "s")
	f.Add("s =x;s\n s=y ;s=z", "s")
	f.Fuzz(func(t *testing.T, lines, name string) {
		if strings.ContainsAny(name, " \t;=\n") || name == "" {
			return
		}
		header := http.Header{"Cookie": strings.Split(lines, "\n")}
		var want []string
		for _, pair := range cookiePairs(header["Cookie"]) {
			if n, v, ok := strings.Cut(pair, "="); ok && n == name {
				want = append(want, v)
			}
		}
		if got := proxy.CookieValues(header, name); !slices.Equal(got, want[:min(2, len(want))]) {
			t.Errorf("values of %q in %q: %q, want %q", name, lines, got, want)
		}
	})
}

// CKE-10: an upstream sets no cookie that a browser would send us as ours.
func TestUpstreamsCannotSetOurCookies(t *testing.T) {
	for line, want := range map[string]bool{
		"__Host-authproxy=x": true, "__Host-authproxy=": true, "__Host-authproxy": true, " \t__Host-authproxy =x; Path=/": true, "__HOST-AUTHPROXY=x": true, "__host-Authproxy-Login-abc=x": true,
		"=__Host-authproxy=x": true, "=__Host-authproxy": true, " = __Host-authproxy=x": true, "__Host-authproxy;x": true,
		"__Host-authproxy2=x": false, "x__Host-authproxy=x": false, "x=__Host-authproxy=x": false, "a=1; __Host-authproxy=x": false, "": false, "=": false, "authproxy=x": false,
	} {
		if got := proxy.SetsOurs("__Host-authproxy", line); got != want {
			t.Errorf("Set-Cookie: %s is ours: %v, want %v", line, got, want)
		}
	}
}

func TestAnswersKeepTheirHeadersButOurs(t *testing.T) {
	r := newRig(t, nil)
	h := http.Header{
		"Set-Cookie": {"a=1", "authproxy=x", "b=2; Path=/", "authproxy-login-q=x"}, "X-Forwarded-User": {"evil"}, "X_authproxy_Assertion": {"x"}, "X-Authproxy-Any": {"x"},
		"Content-Type": {"text/html"}, "X-Forwarded-For": {"kept"}, "X_Forwarded.Groups": {"x"},
	}
	set := h["Set-Cookie"]
	r.CleanAnswer(h)
	want := http.Header{"Set-Cookie": {"a=1", "b=2; Path=/"}, "Content-Type": {"text/html"}, "X-Forwarded-For": {"kept"}}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if set[1] != "authproxy=x" {
		t.Error("the upstream's own slice was written to")
	}
}

// decodeValue and decodeList are what an app does with our headers.
func decodeValue(t *testing.T, v string) string {
	s, err := url.PathUnescape(v)
	if err != nil {
		t.Errorf("%q cannot be decoded: %v", v, err)
	}
	return s
}

// HDR-13, HDR-14, HDR-31: whatever a claim says, its header is printable ASCII, is what a client would trim nothing of, and
// decodes to the claim; a list decodes to its elements.
func FuzzHeaderValue(f *testing.F) {
	for _, s := range [][2]string{{"", ""}, {"x\r\nX-Auth-Groups: admins", "\x00\x7f"}, {"dev,admins", "dev;admins"}, {"Jürgen 李", "%2C"}, {" a ", "\t"}, {"100%", "%"}, {"\xff", "\u2028"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		check := func(v any) string {
			text := proxy.HeaderValue(v)
			if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) || strings.TrimSpace(text) != text {
				t.Errorf("%q becomes %q", v, text)
			}
			return text
		}
		if got := decodeValue(t, check(a)); got != a {
			t.Errorf("%q arrives as %q", a, got)
		}
		if (proxy.HeaderValue(a) == proxy.HeaderValue(b)) != (a == b) {
			t.Errorf("%q and %q become the same", a, b)
		}
		for _, list := range [][]string{{a, b}, {a}, {b, a, a}} {
			text := check(list)
			if text == "" && (len(list) == 1 && list[0] == "") {
				continue // absent and a list of one empty text are the same
			}
			var got []string
			for part := range strings.SplitSeq(text, ",") {
				got = append(got, decodeValue(t, part))
			}
			if !slices.Equal(got, list) {
				t.Errorf("%q arrives as %q", list, got)
			}
			anys := make([]any, len(list))
			for i, s := range list {
				anys[i] = s
			}
			if other := check(anys); other != text {
				t.Errorf("%q becomes %q as a claim and %q as a field", list, other, text)
			}
		}
		check(map[string]any{a: b})
		check([]any{a, map[string]any{a: []any{b}}, nil, 1.5, true})
	})
}

func TestHeaderValuesOfClaimsThatAreNoText(t *testing.T) {
	for _, row := range []struct {
		claim, want string
	}{
		{`null`, ""}, {`true`, "true"}, {`1`, "1"}, {`1.5`, "1.5"}, {`[]`, ""}, {`["a"]`, "a"}, {`["a,b","c d"," e"]`, "a%2Cb,c d,%20e"}, {`[1,true,{"a":"b,c"}]`, `1,true,{"a":"b%2Cc"}`},
		{`{"ü":"%"}`, `{"%C3%BC":"%25"}`}, {`""`, ""}, {`["",""]`, ","},
	} {
		var v any
		if err := json.Unmarshal([]byte(row.claim), &v); err != nil {
			t.Fatal(err)
		}
		if got := proxy.HeaderValue(v); got != row.want {
			t.Errorf("%s becomes %q, want %q", row.claim, got, row.want)
		}
	}
}

// trustingRig believes 10.0.0.0/8 and 2001:db8::/32.
func trustingRig(tb testing.TB) *rig {
	return newRig(tb, func(o *proxy.Options) {
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	})
}

// HLT-02, FWD-29: who the client is.
func TestTheClientIsThePeerOrTheRightmostThatIsNoTrustedProxy(t *testing.T) {
	r := trustingRig(t)
	for _, row := range []struct{ id, peer, lines, client, chain string }{
		{"HLT-02", "192.0.2.7:1", "10.0.0.1", "192.0.2.7", "192.0.2.7"},
		{"HLT-02", "10.0.0.1:1", "", "10.0.0.1", "10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "198.51.100.9", "198.51.100.9", "198.51.100.9, 10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "evil, 198.51.100.9, 10.2.2.2", "198.51.100.9", "198.51.100.9, 10.2.2.2, 10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "10.9.9.9\n198.51.100.9,10.2.2.2", "198.51.100.9", "198.51.100.9, 10.2.2.2, 10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "1.2.3.4, unparsable", "10.0.0.1", "10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "::ffff:198.51.100.9", "198.51.100.9", "198.51.100.9, 10.0.0.1"},
		{"HLT-02", "[::ffff:10.0.0.1]:1", "198.51.100.9", "198.51.100.9", "198.51.100.9, 10.0.0.1"},
		{"HLT-02", "10.0.0.1:1", "1.2.3.4,", "10.0.0.1", "10.0.0.1"},
		{"FWD-29", "10.0.0.1:1", "1.2.3.4:80", "10.0.0.1", "10.0.0.1"}, {"FWD-29", "10.0.0.1:1", "_hidden", "10.0.0.1", "10.0.0.1"}, {"FWD-29", "10.0.0.1:1", `"1.2.3.4"`, "10.0.0.1", "10.0.0.1"},
		{"FWD-29", "[2001:db8::1]:1", "fe80::1%eth0", "fe80::1", "fe80::1, 2001:db8::1"},
		{"FWD-29", "unix", "10.0.0.1", "", ""},
	} {
		t.Run(row.id+" "+row.peer+" "+row.lines, func(t *testing.T) {
			req := httptest.NewRequest("GET", "/public/x", nil)
			req.Host, req.RemoteAddr = "app.test", row.peer
			if row.lines != "" {
				req.Header["X-Forwarded-For"] = strings.Split(row.lines, "\n")
			}
			got, err := r.Read(req)
			if err != nil || got.Client != row.client || got.Chain != row.chain {
				t.Errorf("client %q, chain %q, %v; want %q, %q", got.Client, got.Chain, err, row.client, row.chain)
			}
		})
	}
}

// The client is the peer, or one that each hop between vouches for, and what the upstream gets is a short list of addresses.
func FuzzForwardedFor(f *testing.F) {
	f.Add("10.0.0.1", "1.2.3.4, 10.1.1.1\n10.3.3.3")
	f.Add("192.0.2.1", "10.0.0.1")
	f.Add("10.0.0.1", strings.Repeat("10.0.0.1,", 1000)+"10.0.0.1")
	f.Add("10.0.0.1", "2001:db8::1%"+strings.Repeat("z", 100))
	r := trustingRig(f)
	trusted := func(a netip.Addr) bool {
		return netip.MustParsePrefix("10.0.0.0/8").Contains(a) || netip.MustParsePrefix("2001:db8::/32").Contains(a)
	}
	f.Fuzz(func(t *testing.T, peer, lines string) {
		req := httptest.NewRequest("GET", "/public/x", nil)
		req.Host, req.RemoteAddr = "app.test", netip.AddrPortFrom(netip.IPv4Unspecified(), 1).String()
		a, err := netip.ParseAddr(peer)
		if err == nil {
			req.RemoteAddr = netip.AddrPortFrom(a, 1).String()
		} else {
			a = netip.IPv4Unspecified()
		}
		a = a.Unmap().WithZone("")
		req.Header["X-Forwarded-For"] = strings.Split(lines, "\n")
		got, err := r.Read(req)
		if err != nil {
			t.Fatal(err)
		}
		chain := strings.Split(got.Chain, ", ")
		if len(got.Chain) > 600 || chain[len(chain)-1] != a.String() || chain[0] != got.Client {
			t.Errorf("peer %s, client %s, chain %q", a, got.Client, got.Chain)
		}
		for i, hop := range chain {
			h, err := netip.ParseAddr(hop)
			if err != nil || h.Zone() != "" || i > 0 && !trusted(h) {
				t.Errorf("hop %q of %q", hop, got.Chain)
			}
		}
	})
}

// FWD-11: a trusted proxy that contradicts itself is not believed anything.
func TestForwardedHostAndProtoComeOnceOrNotAtAll(t *testing.T) {
	r := trustingRig(t)
	for _, row := range []struct {
		id     string
		header http.Header
		ok     bool
	}{
		{"FWD-11", http.Header{"X-Forwarded-Host": {"app.test"}}, true},
		{"FWD-11", http.Header{"X-Forwarded-Host": {"evil.test, app.test"}}, false},
		{"FWD-11", http.Header{"X-Forwarded-Host": {"evil.test", "app.test"}}, false},
		{"FWD-11", http.Header{"X-Forwarded-Host": {"app.test", "evil.test"}}, false},
		{"FWD-11", http.Header{"X-Forwarded-Host": {"evil.test"}}, false},
		{"FWD-11", http.Header{"X-Forwarded-Proto": {"https, http"}}, false},
		{"FWD-11", http.Header{"X-Forwarded-Proto": {"https"}}, true},
		{"FWD-11", http.Header{"X-Forwarded-Proto": {"gopher"}}, false},
		{"FWD-22", http.Header{"X-Forwarded-Port": {"1337"}, "X-Forwarded-Prefix": {"//evil.test"}}, true},
	} {
		t.Run(fmt.Sprint(row.id, row.header), func(t *testing.T) {
			req := httptest.NewRequest("GET", "/public/x", nil)
			req.Host, req.RemoteAddr, req.Header = "app.test", "10.0.0.1:1", row.header
			if got, err := r.Read(req); (err == nil) != row.ok || err == nil && got.Host != "app.test" {
				t.Errorf("%+v, %v", got, err)
			}
			req.RemoteAddr = "192.0.2.7:1" // whom nobody trusts
			if got, err := r.Read(req); err != nil || got.Host != "app.test" || got.Proto != "http" {
				t.Errorf("from elsewhere: %+v, %v", got, err)
			}
		})
	}
}

// RED-23, FLW-11, PTH-29: a parameter that we read has one value, which is the one that everybody would read, or none.
func FuzzOnceQuery(f *testing.F) {
	for _, q := range []string{"return_to=/a&prompt=login", "return_to=/a&return_to=/b", "return%5fto=/a&return_to=/b", "prompt=%zz", "x=%zz&prompt=a", "prompt", "prompt=a;return_to=b", "return_to[]=x", "prompt=a%26return_to=b", "return_to=a+b%2B"} {
		f.Add(q)
	}
	names := []string{"return_to", "prompt"}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := proxy.OnceQuery(raw, names...)
		// net/url reads all of it, or says which part it cannot read.
		all := url.Values{}
		for pair := range strings.SplitSeq(raw, "&") {
			one, err := url.ParseQuery(strings.ReplaceAll(pair, ";", "%3B"))
			if err == nil {
				for k, v := range one {
					all[k] = append(all[k], v...)
				}
			}
		}
		for _, name := range names {
			if err == nil && len(all[name]) > 1 {
				t.Errorf("%q: %s came %d times", raw, name, len(all[name]))
			}
			if v, ok := got[name]; ok && (err != nil || len(all[name]) != 1 || all[name][0] != v) {
				t.Errorf("%q: %s is %q and %v, want %q", raw, name, v, err, all[name])
			}
			if _, ok := got[name]; err == nil && !ok && len(all[name]) != 0 {
				t.Errorf("%q: %s is lost, want %q", raw, name, all[name])
			}
		}
		if len(got) > len(names) {
			t.Errorf("%q: %v", raw, got)
		}
	})
}
