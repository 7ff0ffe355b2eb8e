package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"authproxy/config"
	"authproxy/demoapp"
	"authproxy/devprovider"
)

// demoConfig is what a user would write, for the demo's provider and app.
const demoConfig = `
public_url: %s
listen: %q
admin: {listen: ""}
log: {level: warn}
provider:
  issuer: %s
  client_id: demo
  client_secret: %s
  client_auth: post
  scopes: [openid, profile, email, offline_access]
  connections: [google-oauth2, github]
  logout: auth0
session:
  keys: [%s]
upstream: %s
identity:
  claims: [department]
routes:
  - {path: /public, allow: anyone}
  - {path: /admin, allow: [{groups: [admins]}]}
`

// demoCommand runs a provider, an app and the proxy in this process. Nothing is written to disk, and nothing but loopback is
// listened on: the provider lets everybody be anybody.
func demoCommand(e *environment, args []string) int {
	f := e.flags("demo")
	address := f.String("listen", "127.0.0.1:4180", "loopback `ADDRESS` to listen on")
	if status, ok := e.parse(f, args, 0); !ok {
		return status
	}
	publicURL, err := demoURL(*address)
	if err != nil {
		fmt.Fprintf(e.stderr, "authproxy: demo: -listen: %v\nhint: name an address such as 127.0.0.1:4180\n", err)
		return exitConfig
	}
	if err := demo(e, *address, publicURL); err != nil {
		return e.fail(err)
	}
	return exitOK
}

// demoURL is what users type for an address. The name localhost keeps the proxy apart from the provider, which is 127.0.0.1:
// to browsers they are two sites, as they are in earnest.
func demoURL(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	ip := net.ParseIP(host)
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0: // it is in the URL, which the provider and the browser must know before we listen
		return "", fmt.Errorf("%q is not a port from 1 to 65535", port)
	case host == "localhost" || ip != nil && ip.Equal(net.IPv4(127, 0, 0, 1)):
		return "http://localhost:" + port, nil
	case ip != nil && ip.IsLoopback():
		return "http://" + net.JoinHostPort(host, port), nil
	}
	return "", fmt.Errorf("%q is not a loopback address, and the demo's provider lets everybody be anybody", host)
}

func demo(e *environment, address, publicURL string) error {
	taken, err := net.Listen("tcp", address) // until the provider and the app have found ports of their own
	if err != nil {
		return fmt.Errorf("demo: -listen: %s\nhint: authproxy demo -listen 127.0.0.1:4181", cannotListen(config.Addr{Network: "tcp", Address: address}, err))
	}
	defer taken.Close()
	secret := rand.Text()
	users := slices.DeleteFunc(devprovider.DemoUsers(), func(u devprovider.User) bool {
		return u.Username == "big" || u.Username == "case" // they are there to make logins fail
	})
	provider, err := devprovider.Start(devprovider.Options{
		Clients: []devprovider.Client{{ID: "demo", Name: "authproxy demo", Secret: secret, AuthMethod: "post", Callbacks: []string{publicURL + "/auth/callback"},
			LogoutURLs: []string{publicURL + "/auth/"}, InitiateLoginURI: publicURL + "/auth/login", BackchannelURL: "http://" + address + "/auth/backchannel-logout"}},
		Users: users, ShowUsers: true,
	})
	if err != nil {
		return err
	}
	defer provider.Close()

	appListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	appURL := "http://" + appListener.Addr().String()
	var proxied *assembly
	app := &http.Server{ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0), Handler: demoapp.New(demoapp.Options{
		JWKS: func(context.Context) ([]byte, error) {
			if proxied == nil {
				return nil, errors.New("not ready")
			}
			return proxied.proxy.PublicKeys(), nil
		},
		Issuer: publicURL, Audience: appURL, LogoutPath: "/auth/logout", HomePath: "/auth/", LoginPath: "/auth/login",
	})}
	defer app.Close()

	key := make([]byte, 32)
	rand.Read(key)
	text := fmt.Sprintf(demoConfig, publicURL, address, provider.Issuer(), secret, base64.RawURLEncoding.EncodeToString(key), appURL)
	cfg, err := config.Parse("demo", []byte(text), nil)
	if err != nil {
		return err
	}
	logger := newLogger(e.stderr, e.stderr, cfg.Log, cfg.Log.Level)
	if proxied, err = build(cfg, logger, openConfiguredStore); err != nil {
		return err
	}
	go app.Serve(appListener)
	taken.Close()
	return serve(e, &server{log: logger}, proxied, func() { greet(e.stdout, publicURL, provider.Issuer(), users) })
}

// greet says what to do now.
func greet(w io.Writer, publicURL, issuer string, users []devprovider.User) {
	fmt.Fprintf(w, `
  Open   %s

  A sample app sits behind the proxy. Sign in as one of the demo users:

`, publicURL)
	for _, u := range users {
		if u.Password != "" && !u.Blocked {
			fmt.Fprintf(w, "    user %-8s password %-12s %s\n", u.Username, u.Password, u.Note)
		}
	}
	fmt.Fprintf(w, `
  or with the fake Google and GitHub accounts, or sign up. Things to try:

    %s/public   lets anyone in
    %s/admin    is for the group admins: ada may, bob may not
    %s/auth/    says who you are to the proxy

  The development provider is %s. All of it lives in this process and is
  gone when you press Ctrl-C.

`, publicURL, publicURL, publicURL, issuer)
}
