package oidc

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// ErrInvalidGrant says that the provider no longer takes the code or refresh token: the user must sign in again.
var ErrInvalidGrant = errors.New("the provider refused the code or refresh token")

// Unavailable says that the provider could not be reached, timed out, or answered 5xx or 429. Nothing was decided about
// the user; the caller answers 503.
type Unavailable struct {
	Op         string // discovery, keys, token, refresh, userinfo or revocation
	Err        error
	RetryAfter time.Duration // from 1 s to 5 min; 5 s when the provider did not say

	unreachable bool // there was no answer at all
}

func (e *Unavailable) Error() string { return e.Op + ": the provider is unavailable: " + e.Err.Error() }

func (e *Unavailable) Unwrap() error { return e.Err }

// Denied is an error response at the callback (RFC 6749 §4.1.2.1): the provider, or the user there, said no. One that is about
// what we asked for is [Misconfigured].
type Denied struct {
	Code        string // open-ended; Auth0 Actions invent their own. Printable, at most 64 characters
	Description string // for people, not markup: printable, at most 200 characters; may be empty
}

func (e *Denied) Error() string {
	return fmt.Sprintf("authorization response: error %q, description %q", e.Code, e.Description)
}

// Invalid says that what the provider or the browser sent must not be believed.
type Invalid struct {
	Reason string // from a small fixed set of snake_case words, fit for a metric label
	Detail string // for the log
	Hint   string // what an operator can do; "" when nobody need do anything
	Err    error  // the cause, or nil
}

func (e *Invalid) Error() string { return e.Reason + ": " + e.Detail + hint(e.Hint) }

// hint is what follows a text that is for operators.
func hint(what string) string {
	if what == "" {
		return ""
	}
	return "; hint: " + what
}

func (e *Invalid) Unwrap() error { return e.Err }

// Misconfigured says that an operator must act: the provider does not take this client, or is not the one configured.
type Misconfigured struct {
	Reason string // issuer_mismatch, discovery, authorization, client_auth, unauthorized_client, alg_hs256, algorithm or userinfo
	Detail string // for the log
	Hint   string // what to do
	Err    error  // the cause, or nil
}

func (e *Misconfigured) Error() string { return e.Reason + ": " + e.Detail + hint(e.Hint) }

func (e *Misconfigured) Unwrap() error { return e.Err }

func invalid(reason, format string, args ...any) error {
	return &Invalid{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// clean makes words of the provider fit for logs and pages: without the secrets (some providers repeat the code they
// refuse), on one line, printable, and at most limit characters.
func clean(s string, limit int, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "[removed]")
		}
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	out := []rune(strings.Join(strings.Fields(s), " "))
	return string(out[:min(len(out), limit)])
}

// Limits of the two texts of an RFC 6749 error, in characters.
const (
	maxErrorCode   = 64
	maxDescription = 200
)
