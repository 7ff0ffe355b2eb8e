package upstream_test

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"authproxy/assertion"
	"authproxy/identity"
	"authproxy/upstream"
)

// running is what the proxy does for the examples: it publishes its keys, and sends requests with an assertion.
func running() (jwksURL string, request func(path, audience string) *http.Request, stop func()) {
	key, err := assertion.DeriveKey([]byte("a session key of at least 32 bytes"))
	if err != nil {
		panic(err)
	}
	signer, err := assertion.NewSigner("https://app.example.com", 2*time.Minute, []*ecdsa.PrivateKey{key})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		jwks, _ := signer.JWKS()
		w.Write(jwks)
	}))
	return server.URL + "/jwks.json", func(path, audience string) *http.Request {
		r := httptest.NewRequest("GET", path, nil)
		if audience != "" {
			token, _, err := signer.Mint(&identity.Identity{Subject: "auth0|ada", Name: "Ada", Groups: []string{"staff"}}, nil, "session-1", audience, time.Now())
			if err != nil {
				panic(err)
			}
			r.Header.Set("X-Authproxy-Assertion", token)
		}
		return r
	}, server.Close
}

func answer(h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
}

// An app that is for signed-in users only.
func ExampleVerifier_Require() {
	jwksURL, request, stop := running()
	defer stop()

	verifier, err := upstream.NewVerifier(jwksURL, "https://app.example.com", "http://127.0.0.1:5000")
	if err != nil {
		log.Fatal(err)
	}
	app := verifier.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := upstream.FromContext(r.Context())
		fmt.Fprintf(w, "Hello, %s!", who.Name)
	}))

	answer(app, request("/", "http://127.0.0.1:5000"))
	answer(app, request("/", "http://127.0.0.1:6000")) // an assertion that another app got
	answer(app, request("/", ""))
	// Output:
	// 200 Hello, Ada!
	// 401 This app is to be used through its proxy.
	//
	// 401 This app is to be used through its proxy.
}

// An app with a page for everybody.
func ExampleVerifier_Identify() {
	jwksURL, request, stop := running()
	defer stop()

	verifier, err := upstream.NewVerifier(jwksURL, "https://app.example.com", "http://127.0.0.1:5000")
	if err != nil {
		log.Fatal(err)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := verifier.Identify(r)
		switch {
		case errors.Is(err, upstream.ErrNone):
			fmt.Fprint(w, "Hello, whoever you are!")
		case err != nil:
			http.Error(w, "This app is to be used through its proxy.", http.StatusUnauthorized)
		default:
			fmt.Fprintf(w, "Hello, %s!", who.Name)
		}
	})

	answer(page, request("/", ""))
	answer(page, request("/", "http://127.0.0.1:5000"))
	// Output:
	// 200 Hello, whoever you are!
	// 200 Hello, Ada!
}

// A test of a handler needs no proxy.
func ExampleNewContext() {
	admin := func(w http.ResponseWriter, r *http.Request) {
		if who, ok := upstream.FromContext(r.Context()); !ok || who.Subject != "auth0|ada" {
			http.Error(w, "Ada only.", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, "Welcome back.")
	}

	r := httptest.NewRequest("GET", "/admin", nil)
	answer(http.HandlerFunc(admin), r.WithContext(upstream.NewContext(r.Context(), &upstream.Identity{Subject: "auth0|ada"})))
	// Output:
	// 200 Welcome back.
}
