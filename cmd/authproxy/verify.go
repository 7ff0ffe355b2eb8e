package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"authproxy/assertion"
)

// verifyCommand checks an assertion as an upstream does, and prints its claims.
func verifyCommand(e *environment, args []string) int {
	f := e.flags("verify")
	file := configFlag(f)
	jwks := f.String("jwks", "", "the proxy's public keys, from a `URL|FILE`; default those of the configuration")
	want := assertion.Expected{Now: time.Now(), Leeway: verifyLeeway}
	f.StringVar(&want.Audience, "audience", "", "the `AUDIENCE` that the assertion must have; without it any will do")
	f.StringVar(&want.Issuer, "issuer", "", "the `ISSUER` that the assertion must have; default public_url of the configuration, with -jwks any")
	if status, ok := e.parse(f, args, 1); !ok {
		return status
	}
	wrong, chosen := "", map[string]bool{}
	f.Visit(func(f *flag.Flag) {
		chosen[f.Name] = true
		if f.Value.String() == "" { // a variable of a script that is not set must not make us check less
			wrong = "-" + f.Name + " has no value"
		}
	})
	switch {
	case wrong != "":
	case chosen["jwks"] && chosen["config"]:
		wrong = "-jwks and -config exclude each other"
	case f.NArg() == 0:
		wrong = "there is no token: give the value of the header X-Authproxy-Assertion, or - for stdin"
	}
	if wrong != "" {
		fmt.Fprintf(e.stderr, "authproxy: verify: %s\nhint: authproxy verify -help says what it takes\n", wrong)
		return exitConfig
	}
	var (
		keys *assertion.KeySet
		err  error
	)
	if *jwks != "" {
		keys, err = e.keySet(*jwks)
	} else {
		cfg, ok := e.load(*file)
		if !ok {
			return exitConfig
		}
		a, berr := build(cfg, slog.New(slog.DiscardHandler), closedStore)
		if berr != nil {
			e.mistakes(berr)
			return exitConfig
		}
		if want.Issuer == "" {
			want.Issuer = publicURL(cfg)
		}
		keys, err = assertion.ParseKeySet(a.proxy.PublicKeys())
	}
	if err != nil {
		return e.fail(fmt.Errorf("verify: %w", err))
	}
	token := f.Arg(0)
	if token == "-" {
		text, err := readAll(e.stdin)
		if err != nil {
			return e.fail(fmt.Errorf("verify: %w", err))
		}
		token = string(text)
	}
	want.InsecureAnyIssuer, want.InsecureAnyAudience = want.Issuer == "", want.Audience == ""
	token = strings.TrimSpace(token)
	if _, err := assertion.VerifyWith(token, keys.Find, want); err != nil {
		var refused *assertion.Refusal
		if errors.As(err, &refused) {
			err = fmt.Errorf("%w\nhint: %s", err, verifyHints[refused.Check])
		}
		return e.fail(fmt.Errorf("verify: %w", err))
	}
	text, err := printedClaims(token)
	if err != nil {
		return e.fail(fmt.Errorf("verify: %w", err))
	}
	fmt.Fprintln(e.stdout, text)
	if want.Audience == "" {
		fmt.Fprint(e.stderr, "authproxy: verify: the audience was not checked\nhint: -audience says whom the assertion must be for, as each app has to ask\n")
	}
	if want.Issuer == "" {
		fmt.Fprint(e.stderr, "authproxy: verify: the issuer was not checked\nhint: -issuer says which proxy, by its public_url, it must be from\n")
	}
	return exitOK
}

const (
	verifyLeeway = 30 * time.Second // as assertion.Verify has it
	maxInput     = 1 << 20          // bytes of a file or of stdin
)

// verifyHints say what to do when an assertion fails at a check.
var verifyHints = map[assertion.Check]string{
	assertion.CheckForm:      "give the whole value of the header X-Authproxy-Assertion, and nothing else",
	assertion.CheckType:      "this is another token, such as an ID token or one for the app's pages; the assertion is in the header X-Authproxy-Assertion",
	assertion.CheckIssuer:    "the issuer is the public_url of the proxy, without a slash at its end",
	assertion.CheckAudience:  "the audience is scheme and host of the upstream in the proxy's configuration, unless audience is set at the route or in identity.assertion",
	assertion.CheckSubject:   "assertions of authproxy have a sub: this one is not from it",
	assertion.CheckTime:      "an assertion lives as long as identity.assertion.ttl, two minutes by default: take a fresh one, or compare the clocks",
	assertion.CheckKey:       "another proxy has signed it, or its keys have changed since: get them anew from its /jwks.json",
	assertion.CheckSignature: "it was changed on its way, or forged: an app must not believe it",
}

// keySet gets the keys from a URL or a file. Errors come with hints.
func (e *environment) keySet(from string) (*assertion.KeySet, error) {
	if strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://") {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10}
		keys, err := assertion.FetchKeySet(e.ctx, &http.Client{Transport: transport}, from)
		if err != nil {
			return nil, fmt.Errorf("%w\nhint: the proxy has its keys at PREFIX/jwks.json and, on the admin listener, at /jwks.json", err)
		}
		return keys, nil
	}
	file, err := os.Open(from)
	if err != nil {
		return nil, fmt.Errorf("-jwks: %w\nhint: give a file, or a URL that begins with http:// or https://", err)
	}
	defer file.Close()
	text, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("-jwks: %w", err)
	}
	keys, err := assertion.ParseKeySet(text)
	if err != nil {
		return nil, fmt.Errorf("-jwks: %s: %w\nhint: it must be what the proxy answers at PREFIX/jwks.json", from, err)
	}
	return keys, nil
}

func readAll(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("more than %d bytes\nhint: this is neither a token nor a key set", maxInput)
	}
	return text, err
}

// printedClaims are the claims of a token that has been verified, as indented JSON. Numbers are as they are in the token, and
// characters that a terminal would obey are escaped.
func printedClaims(token string) (string, error) {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return "", err
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	var claims map[string]any
	if err := decoder.Decode(&claims); err != nil {
		return "", err
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(claims); err != nil {
		return "", err
	}
	var escaped strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			escaped.WriteRune(r)
		case r > 0xffff: // RFC 8259 §7: two halves
			r -= 0x10000
			fmt.Fprintf(&escaped, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&escaped, `\u%04x`, r)
		}
	}
	return escaped.String(), nil
}
