package devprovider_test

import (
	"go/parser"
	gotoken "go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"authproxy/devprovider"
)

func TestNewRefusesIssuersThatAreNotOnThisMachine(t *testing.T) {
	for issuer, good := range map[string]bool{
		"http://127.0.0.1:4181/":        true,
		"http://127.8.9.1/":             true,
		"https://localhost:4181/":       true,
		"http://[::1]:4181/":            true,
		"":                              false,
		"http://127.0.0.1:4181":         false,
		"http://127.0.0.1:4181/x/":      false,
		"http://127.0.0.1:4181/?x":      false,
		"http://127.0.0.1:4181/?":       false,
		"http://127.0.0.1:4181/#":       false,
		"http://a@127.0.0.1:4181/":      false,
		"ftp://127.0.0.1/":              false,
		"http://0.0.0.0:4181/":          false,
		"http://[::]:4181/":             false,
		"http://192.168.1.1/":           false,
		"https://tenant.auth0.com/":     false,
		"http://localhost.example.com/": false,
		"http://127.0.0.1.nip.io/":      false,
		"http://%zz/":                   false,
	} {
		if _, err := devprovider.New(devprovider.Options{Issuer: issuer}); (err == nil) != good {
			t.Errorf("New(%q): %v, want it to work: %t", issuer, err, good)
		}
	}
}

func TestStartRefusesOtherAddresses(t *testing.T) {
	for _, issuer := range []string{"http://0.0.0.0:0/", "https://127.0.0.1:0/", "http://example.com/", "http://%zz/", "http://127.0.0.1:0"} {
		if s, err := devprovider.Start(devprovider.Options{Issuer: issuer}); err == nil {
			s.Close()
			t.Errorf("Start(%q) works", issuer)
		}
	}
}

func TestStartListensAtTheIssuer(t *testing.T) {
	first := start(t, options())
	issuer := first.Issuer()
	if _, err := devprovider.Start(devprovider.Options{Issuer: issuer}); err == nil {
		t.Fatal("two providers listen at one address")
	}
	first.Close()
	second := start(t, devprovider.Options{Issuer: issuer})
	if got := fetch(t, second, "/.well-known/openid-configuration"); got["issuer"] != issuer {
		t.Errorf("issuer %v, want %s", got["issuer"], issuer)
	}
}

func TestNewRefusesMistakes(t *testing.T) {
	one := devprovider.Client{ID: "a", Secret: "x"}
	user := devprovider.User{Username: "a", Subject: "a"}
	for name, o := range map[string]devprovider.Options{
		"client without ID":              {Clients: []devprovider.Client{{Secret: "x"}}},
		"client without secret":          {Clients: []devprovider.Client{{ID: "a"}}},
		"client of post with only a key": {Clients: []devprovider.Client{{ID: "a", AuthMethod: "post", PublicKey: &devprovider.UnpublishedKey().PublicKey}}},
		"client without key":             {Clients: []devprovider.Client{{ID: "a", Secret: "x", AuthMethod: "private_key_jwt"}}},
		"client with an unknown method":  {Clients: []devprovider.Client{{ID: "a", Secret: "x", AuthMethod: "none"}}},
		"client with an unknown usage":   {Clients: []devprovider.Client{{ID: "a", Secret: "x", OrganizationUsage: "maybe"}}},
		"two clients of one ID":          {Clients: []devprovider.Client{one, one}},
		"user without name":              {Users: []devprovider.User{{Subject: "a"}}},
		"user without subject":           {Users: []devprovider.User{{Username: "a"}}},
		"two users of one name":          {Users: []devprovider.User{user, {Username: "a", Subject: "b"}}},
		"two users of one subject":       {Users: []devprovider.User{user, {Username: "b", Subject: "a"}}},
		"API without identifier":         {APIs: []devprovider.API{{}}},
		"API with an unknown dialect":    {APIs: []devprovider.API{{Identifier: "a", Dialect: "x"}}},
	} {
		o.Issuer = "http://127.0.0.1:4181/"
		if _, err := devprovider.New(o); err == nil {
			t.Errorf("%s: New works", name)
		}
	}
}

func TestOnlyThisMachineAndThisHostAreAnswered(t *testing.T) {
	p, err := devprovider.New(devprovider.Options{Issuer: "http://127.0.0.1:4181/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, peer, host, path string
		status                 int
	}{
		{"this machine", "127.0.0.1:5", "127.0.0.1:4181", "/.well-known/openid-configuration", 200},
		{"this machine over IPv6", "[::1]:5", "127.0.0.1:4181", "/.well-known/openid-configuration", 200},
		{"this machine as IPv4 in IPv6", "[::ffff:127.0.0.1]:5", "127.0.0.1:4181", "/.well-known/openid-configuration", 200},
		{"another machine", "192.0.2.1:5", "127.0.0.1:4181", "/.well-known/openid-configuration", 403},
		{"nobody knows who", "", "127.0.0.1:4181", "/.well-known/openid-configuration", 403},
		{"a name that was bound to this machine", "127.0.0.1:5", "evil.example:4181", "/.well-known/openid-configuration", 421},
		{"another port", "127.0.0.1:5", "127.0.0.1:80", "/.well-known/openid-configuration", 421},
		{"an unknown path", "127.0.0.1:5", "127.0.0.1:4181", "/x", 404},
		{"a page", "127.0.0.1:5", "127.0.0.1:4181", "/v2/logout", 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", row.path, nil)
			r.RemoteAddr, r.Host = row.peer, row.host
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if w.Code != row.status {
				t.Errorf("status %d, want %d", w.Code, row.status)
			}
		})
	}
	if p.Count("") != 4 {
		t.Errorf("%d requests are counted, want the 4 that were served", p.Count(""))
	}
}

func TestHTTPSIssuerHasCookiesForOtherSites(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	o := options()
	o.Issuer = "https://" + s.Listener.Addr().String() + "/"
	p, err := devprovider.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" })
	s.Config.Handler = p
	s.StartTLS()
	defer s.Close()
	client := s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Get(o.Issuer + "authorize?" + authRequest().Encode())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if c := res.Header.Get("Set-Cookie"); !strings.HasPrefix(c, "auth0=") || !strings.HasSuffix(c, "; HttpOnly; Secure; SameSite=None") {
		t.Errorf("Set-Cookie: %q", c)
	}
}

func TestShelfIsBoundedAndForgets(t *testing.T) {
	s := devprovider.NewShelf(3)
	now := time.Now()
	put := func(key string, life time.Duration) { s.Put(key, key, now, now.Add(life)) }
	has := func(key string) bool { _, ok := s.Get(key, now); return ok }
	put("a", time.Minute)
	put("b", time.Hour)
	put("a", time.Minute) // now newer than b
	put("c", time.Hour)
	put("d", time.Hour)
	if has("b") || !has("a") || !has("c") || !has("d") || s.Len() != 3 {
		t.Errorf("a %t, b %t, c %t, d %t of %d; want all but b, the oldest", has("a"), has("b"), has("c"), has("d"), s.Len())
	}
	now = now.Add(time.Minute)
	if has("a") || s.Len() != 2 {
		t.Errorf("a %t of %d; want it to be gone with its time", has("a"), s.Len())
	}
	now = now.Add(time.Hour)
	put("e", time.Hour)
	if s.Len() != 1 {
		t.Errorf("%d values, want those that have expired to be swept", s.Len())
	}
}

// The provider shares no code with the relying party, so that one cannot hide the other's mistakes.
func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), f.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") || first == "authproxy" {
				t.Errorf("%s imports %s", f.Name(), path)
			}
			checked++
		}
	}
	if checked < 20 {
		t.Errorf("%d imports were looked at, want more: is this the right directory?", checked)
	}
}
