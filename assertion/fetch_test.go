package assertion_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authproxy/assertion"
)

func TestFetchKeySetFetchesWithinBounds(t *testing.T) {
	jwks, _ := newSigner(t).JWKS()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("another origin was asked")
		w.Write(jwks)
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/jwks.json", func(w http.ResponseWriter, _ *http.Request) { w.Write(jwks) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks.json", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/jwks.json", http.StatusFound)
	})
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(jwks)
		w.Write(bytes.Repeat([]byte{' '}, 256<<10))
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"keys":[]}`)) })
	mux.HandleFunc("/error", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		w.Write(jwks)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	followsAll := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	for _, client := range []*http.Client{nil, {}, followsAll} {
		for path, ok := range map[string]bool{
			"/jwks.json": true, "/moved": true,
			"/elsewhere": false, "/round": false, "/large": false, "/page": false, "/none": false, "/error": false, "/missing": false,
		} {
			keys, err := assertion.FetchKeySet(t.Context(), client, server.URL+path)
			if ok != (err == nil) || ok != (keys != nil) {
				t.Errorf("%s: FetchKeySet: %v, want success %v", path, err, ok)
			}
		}
	}
}

func TestFetchKeySetDoesNotWaitForEver(t *testing.T) {
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"keys":`))
		w.(http.Flusher).Flush()
		<-over
	}))
	defer server.Close()
	defer close(over)
	if _, err := assertion.FetchKeySet(t.Context(), &http.Client{Timeout: 50 * time.Millisecond}, server.URL); err == nil {
		t.Error("no error after the client's timeout")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := assertion.FetchKeySet(ctx, nil, server.URL); err == nil {
		t.Error("no error after the context's end")
	}
}

func TestFetchKeySetRefusesURLs(t *testing.T) {
	for _, from := range []string{"", "jwks.json", "/jwks.json", "file:///jwks.json", "ftp://app.test/jwks.json", "http:///jwks.json", "http://:80/", "https:app.test",
		"http://user:hunter2@app.test/", "http://app.test/#x", "http://app.test/%zz", "http://user:hunter2@app.test/%zz"} {
		if _, err := assertion.FetchKeySet(t.Context(), nil, from); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: FetchKeySet: %v, want an error without the password", from, err)
		}
	}
}
