// Command upstream is the app of the benchmark: it answers every request with 1 KiB, and /assertion with what it got in
// X-Authproxy-Assertion.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	body := bytes.Repeat([]byte("0123456789abcde\n"), 64)
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if r.URL.Path == "/assertion" {
			io.WriteString(w, r.Header.Get("X-Authproxy-Assertion"))
			return
		}
		w.Write(body)
	})))
}
