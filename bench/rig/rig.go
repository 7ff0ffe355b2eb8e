// Package rig sets up what is measured, and reads what it costs: a bare reverse proxy, authproxy with each of its session
// stores, an upstream and a Redis, each in a process of its own on loopback, and the sessions that their users have.
package rig

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"authproxy/devprovider"
)

// A Rig is what the programs have in common.
type Rig struct {
	dir      string // with the programs; logs, sockets and sessions go there too
	key      []byte // the session key of every authproxy
	secret   string // of the client at the provider
	provider *devprovider.Server
	redis    *Redis // nil until it is needed
}

// Main is the main function of a program that measures: it calls measure with what the flag -dir gives, and ends what still
// runs after limit, which is for what hangs: a machine that is merely slow gets through.
func Main(limit time.Duration, measure func(ctx context.Context, r *Rig) error) {
	dir := flag.String("dir", "", "`DIRECTORY` with the programs authproxy, upstream and bareproxy; logs and sessions go there too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, *dir, measure); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, measure func(ctx context.Context, r *Rig) error) error {
	dir, err := filepath.Abs(dir) // os/exec looks for a program without a slash elsewhere
	if err != nil {
		return err
	}
	r := &Rig{dir: dir, key: make([]byte, 32), secret: rand.Text()}
	rand.Read(r.key)
	r.provider, err = devprovider.Start(devprovider.Options{
		Clients: []devprovider.Client{{ID: "bench", Secret: r.secret}},
		Users:   devprovider.DemoUsers(),
	})
	if err != nil {
		return err
	}
	defer r.provider.Close()
	r.provider.Set(func(f *devprovider.Faults) { f.SignInAs = "ada" }) // without pages; everything else is as always
	return measure(ctx, r)
}

// Machine says in a few words what is measured on.
func Machine() string { return fmt.Sprintf("%s, %d CPUs", runtime.Version(), runtime.NumCPU()) }

// Upstream starts an app.
func (r *Rig) Upstream(ctx context.Context) (*Process, error) {
	return startPrinting(ctx, filepath.Join(r.dir, "upstream"))
}

// Bare starts what authproxy is compared with.
func (r *Rig) Bare(ctx context.Context, upstream *Process) (*Process, error) {
	return startPrinting(ctx, filepath.Join(r.dir, "bareproxy"), upstream.URL)
}

const config = `
public_url: http://%[1]s
listen: %[1]s
admin: {listen: %[2]q}
log: {format: json}
provider: {issuer: %[3]q, client_id: bench, client_secret: %[4]q}
session:
  keys: [%[5]q]
  store: %[6]s
%[7]supstream: %[8]s
`

// Authproxy starts one with that session store. It logs as it does by default, into a file.
func (r *Rig) Authproxy(ctx context.Context, store string, upstream *Process) (*Process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	where := "" // beside the cookie store it would say where the list of ended sessions is
	if store == "redis" {
		server, err := r.Redis(ctx)
		if err != nil {
			return nil, err
		}
		where = fmt.Sprintf("  redis: {url: %q}\n", server.url)
	}
	if store == "file" {
		where = fmt.Sprintf("  file: {path: %q}\n", r.file())
	}
	name := filepath.Join(r.dir, store+"-"+rand.Text())
	text := fmt.Sprintf(config, address, admin, r.provider.Issuer(), r.secret, base64.RawURLEncoding.EncodeToString(r.key), store, where, upstream.URL)
	if err := os.WriteFile(name+".yaml", []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := start(ctx, name+".log", filepath.Join(r.dir, "authproxy"), "serve", "-config", name+".yaml")
	if err != nil {
		return nil, err
	}
	p.URL, p.Admin = "http://"+address, "http://"+admin
	return p, p.listens(address)
}

// file is where the file store keeps its sessions.
func (r *Rig) file() string { return filepath.Join(r.dir, "sessions.db") }

// freeAddress is one that nobody listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
