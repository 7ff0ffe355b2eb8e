package e2e_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"authproxy/devprovider"
)

// A browser keeps a SameSite=Strict cookie back when a navigation begins at another site, as the redirect from the provider
// does. The proxy must notice that it asks too early, and not send the user to the provider again.
func TestASameSiteStrictCookieSignsInWithoutALoop(t *testing.T) {
	port := freePort(t)
	url, secret := fmt.Sprintf("http://localhost:%d", port), rand.Text()
	provider, err := devprovider.Start(devprovider.Options{
		Clients: []devprovider.Client{{ID: "e2e", Secret: secret, Callbacks: []string{url + "/auth/callback"}, LogoutURLs: []string{url + "/auth/"}}},
		Users:   []devprovider.User{{Username: "ada", Password: "difference engine", Subject: "auth0|ada"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	upstream := startApp(t)
	serve(t, url, fmt.Sprintf(`
public_url: %s
listen: 127.0.0.1:%d
admin: {listen: ""}
provider: {issuer: %q, client_id: e2e, client_secret: %s}
session: {keys: [%s], cookie: {same_site: strict}}
upstream: %s
`, url, port, provider.Issuer(), secret, sessionKey(), upstream.URL))

	tab := newBrowser(t).tab()
	tab.open(url + "/deep/inside?a=b")
	tab.shows(providerPages, "Log in")
	tab.fill("User name or e-mail address", "ada")
	tab.fill("Password", "difference engine")
	tab.click("Continue")
	tab.shows(url+"/deep/inside?a=b", "The app")
	if n := provider.Count("authorize"); n != 1 {
		t.Errorf("%d authorization requests for one login, want 1", n)
	}

	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>Elsewhere</title><link rel="icon" href="data:,"><h1>Elsewhere</h1><a href="%s/linked">To the app</a>`, url)
	}))
	t.Cleanup(elsewhere.Close)
	tab.open(elsewhere.URL)
	tab.click("To the app")
	if page := tab.shows(url+"/linked", "The app"); !strings.Contains(page.Text, "/linked for auth0|ada") {
		t.Errorf("the app does not know who followed the link: %s", page.Text)
	}
	if n := provider.Count("authorize"); n != 1 {
		t.Errorf("%d authorization requests after a link from another site, want 1: the session was there", n)
	}
}
