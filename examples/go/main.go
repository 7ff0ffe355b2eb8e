// Command go is an app behind authproxy. It greets whom the proxy's signed statement, the assertion, is about, and refuses
// everybody else.
package main

import (
	"cmp"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"

	"authproxy/upstream"
)

func main() {
	issuer := cmp.Or(os.Getenv("AUTHPROXY_ISSUER"), "http://localhost:8080")     // public_url of the proxy
	audience := cmp.Or(os.Getenv("AUTHPROXY_AUDIENCE"), "http://127.0.0.1:5000") // upstream in the proxy's configuration
	verifier, err := upstream.NewVerifier(cmp.Or(os.Getenv("AUTHPROXY_JWKS"), issuer+"/auth/jwks.json"), issuer, audience)
	if err != nil {
		log.Fatal(err)
	}
	verifier.Log = slog.Default()
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "5000"))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	log.Fatal(http.Serve(listener, verifier.Require(http.HandlerFunc(hello))))
}

func hello(w http.ResponseWriter, r *http.Request) {
	who, _ := upstream.FromContext(r.Context()) // Require has seen to it
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	name, groups := cmp.Or(who.Name, who.Username, who.Email, who.Subject), cmp.Or(strings.Join(who.Groups, ", "), "none")
	fmt.Fprintf(w, "Hello, %s!\nYour groups: %s\n", name, groups)
}
