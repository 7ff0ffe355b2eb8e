package session

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"authproxy/identity"
)

// record is the encoded form of a Session. Its names are short because browsers send them with every request.
type record struct {
	ID            string         `json:"i"`
	Issuer        string         `json:"u"`
	Subject       string         `json:"s"`
	Email         string         `json:"e,omitempty"`
	EmailVerified bool           `json:"v,omitempty"`
	Name          string         `json:"n,omitempty"`
	Username      string         `json:"p,omitempty"`
	Groups        []string       `json:"g,omitempty"`
	Organization  string         `json:"o,omitempty"`
	Permissions   []string       `json:"P,omitempty"`
	Scopes        []string       `json:"S,omitempty"`
	ACR           string         `json:"a,omitempty"`
	AuthTime      int64          `json:"t,omitempty"` // seconds
	Claims        map[string]any `json:"c,omitempty"`
	ProviderSID   string         `json:"d,omitempty"`
	Nonce         string         `json:"N,omitempty"`
	AccessToken   string         `json:"A,omitempty"`
	AccessExpiry  int64          `json:"x,omitempty"` // seconds
	RefreshToken  string         `json:"R,omitempty"`
	RenewAt       int64          `json:"r,omitempty"` // milliseconds, like the rest
	Agent         string         `json:"b,omitempty"`
	Address       string         `json:"k,omitempty"`
	Created       int64          `json:"C"`
	Used          int64          `json:"U"`
	Expires       int64          `json:"X"`
	Version       uint32         `json:"w"`
}

// dictionary is what flate may refer back to, the likeliest last. It may grow at its front only: any other change makes
// every cookie unreadable and needs a new format.
var dictionary = []byte(`"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0","(iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 ` +
	`(Linux; Android 10; K) (Macintosh; Intel Mac OS X 10_15_7) (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36","k":"192.0.2.` +
	`openid profile email offline_access "P":["read:"write:admin"],"o":"org_"c":{"https://example.com/roles":["admins","users","staff"]` +
	`.eu.auth0.com/.us.auth0.com/{"i":"","u":"https://","s":"auth0|google-oauth2|github|","e":"@gmail.com","v":true,"n":"","p":"","g":["admin"],"S":["openid","profile","email","offline_access"],"t":17,"d":"","N":"","A":"eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6I","x":17,"R":"v1.M","C":17,"U":17,"X":17}`)

// format is the first byte of an encoded session.
const format = 1

// maxDecoded bounds what a session may grow to when it is inflated.
const maxDecoded = 1 << 20

var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriterDict(nil, flate.BestCompression, dictionary)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

var inflaters = sync.Pool{New: func() any { return flate.NewReaderDict(bytes.NewReader(nil), dictionary) }}

func encode(s *Session) ([]byte, error) {
	who := s.Identity
	r := record{
		ID: s.ID, Issuer: who.Issuer, Subject: who.Subject, Email: who.Email, EmailVerified: who.EmailVerified, Name: who.Name,
		Username: who.Username, Groups: who.Groups, Organization: who.Organization, Permissions: who.Permissions, Scopes: who.Scopes,
		ACR: who.ACR, AuthTime: seconds(who.AuthTime), Claims: who.Claims,
		ProviderSID: s.ProviderSID, Nonce: s.Nonce, AccessToken: s.AccessToken, AccessExpiry: seconds(s.AccessExpiry), RefreshToken: s.RefreshToken, RenewAt: milliseconds(s.RenewAt),
		Agent: s.Agent, Address: s.Address, Created: s.Created.UnixMilli(), Used: s.Used.UnixMilli(), Expires: s.Expires.UnixMilli(), Version: s.version,
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteByte(format)
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&out)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var errFormat = errors.New("session: not an encoded session")

func decode(b []byte) (*Session, error) {
	if len(b) == 0 || b[0] != format {
		return nil, errFormat
	}
	inflate := inflaters.Get().(io.Reader)
	defer inflaters.Put(inflate)
	if err := inflate.(flate.Resetter).Reset(bytes.NewReader(b[1:]), dictionary); err != nil {
		return nil, errFormat
	}
	text, err := io.ReadAll(io.LimitReader(inflate, maxDecoded+1))
	if err != nil || len(text) > maxDecoded {
		return nil, errFormat
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, errFormat
	}
	if r.ID == "" || r.Subject == "" || r.Issuer == "" {
		return nil, errFormat // nobody is no session
	}
	return &Session{
		ID: r.ID,
		Identity: &identity.Identity{
			Issuer: r.Issuer, Subject: r.Subject, Email: r.Email, EmailVerified: r.EmailVerified, Name: r.Name, Username: r.Username,
			Groups: r.Groups, Organization: r.Organization, Permissions: r.Permissions, Scopes: r.Scopes, ACR: r.ACR,
			AuthTime: fromSeconds(r.AuthTime), Claims: r.Claims,
		},
		ProviderSID: r.ProviderSID, Nonce: r.Nonce, AccessToken: r.AccessToken, AccessExpiry: fromSeconds(r.AccessExpiry), RefreshToken: r.RefreshToken, RenewAt: fromMilliseconds(r.RenewAt),
		Agent: r.Agent, Address: r.Address, Created: time.UnixMilli(r.Created), Used: time.UnixMilli(r.Used), Expires: time.UnixMilli(r.Expires),
		version: r.Version,
		live:    new(live),
	}, nil
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0)
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilliseconds(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// A Cost is what a part of a session needs, in bytes before compression.
type Cost struct {
	Name  string // a field of the identity, a claim, access_token or refresh_token
	Bytes int
}

// costs are the parts of a session, the dearest first.
func costs(s *Session) []Cost {
	var all []Cost
	add := func(name string, v any) {
		if text, err := json.Marshal(v); err == nil && v != nil {
			all = append(all, Cost{name, len(text)})
		}
	}
	for _, name := range identity.Fields() {
		add(name, s.Identity.Value(name))
	}
	for name, v := range s.Identity.Claims {
		add(name, v)
	}
	add("access_token", s.AccessToken)
	add("refresh_token", s.RefreshToken)
	slices.SortFunc(all, func(a, b Cost) int {
		if a.Bytes != b.Bytes {
			return b.Bytes - a.Bytes
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}
