package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The test of the other tests: what they promise to notice in the console is noticed.
func TestComplaintsOfTheBrowserAreNoticed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		switch r.URL.Path {
		case "/policy":
			w.Header().Set("Content-Security-Policy", "default-src 'none'")
			fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>Page</h1><style>h1 { color: red }</style>`)
		case "/console":
			fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>Page</h1><script>console.error("oops")</script>`)
		case "/exception":
			fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>Page</h1><script>undefined.oops()</script>`)
		case "/missing":
			fmt.Fprint(w, `<!doctype html><link rel="icon" href="data:,"><h1>Page</h1><img src="/nothing">`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	for path, want := range map[string]string{"/policy": "security policy", "/console": "console.error", "/exception": "exception", "/missing": "404"} {
		b := unwatched(t)
		tab := b.tab()
		tab.open(server.URL + path)
		tab.shows(server.URL+path, "Page")
		eventually(t, "a complaint about "+path, func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.ContainsFunc(b.problems, func(p string) bool { return strings.Contains(strings.ToLower(p), want) })
		})
	}
}
