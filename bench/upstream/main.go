// Command upstream is the app of the benchmarks: it answers every request with 1 KiB, /assertion with what it got in
// X-Authproxy-Assertion, and on /socket it is a WebSocket that sends back each frame.
package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
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
		switch r.URL.Path {
		case "/assertion":
			io.WriteString(w, r.Header.Get("X-Authproxy-Assertion"))
		case "/socket":
			socket(w, r)
		default:
			w.Write(body)
		}
	})))
}

// socket shakes hands (RFC 6455 §4.2.2) and echoes small frames. That they stay masked is of no interest to who counts them.
func socket(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" {
		http.Error(w, "this is a WebSocket", http.StatusBadRequest)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(accept[:]))
	io.Copy(c, buffered)
}
