package session

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/gorilla/securecookie"
)

// A Sealer seals values that browsers keep for us: encrypted and authenticated (AES-256-CTR, then HMAC-SHA256, by
// securecookie), and bound to a purpose and a cookie name. It says nothing about age; that belongs inside.
type Sealer struct {
	codecs []*securecookie.SecureCookie // the first seals, all open
	id     [32]byte                     // the same for the same keys in the same order
}

// NewSealer derives its keys from the session keys, of at least 32 bytes each. The first seals, all open.
func NewSealer(keys [][]byte) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("session: no key")
	}
	s := &Sealer{}
	for _, k := range keys {
		if len(k) < 32 {
			return nil, fmt.Errorf("session: a key of %d bytes, want 32 at least", len(k))
		}
		derived, err := hkdf.Key(sha256.New, k, nil, "authproxy sealed cookie v1", 64)
		if err != nil {
			return nil, err
		}
		s.id = sha256.Sum256(append(s.id[:], derived...))
		// 32 bytes of HMAC-SHA256 and an AES-256 key. Age and length are ours to judge.
		s.codecs = append(s.codecs, securecookie.New(derived[:32], derived[32:]).MaxAge(0).MaxLength(0).SetSerializer(raw{}))
	}
	return s, nil
}

// Seal seals plain for that purpose and cookie name.
func (s *Sealer) Seal(purpose, name string, plain []byte) (string, error) {
	return s.codecs[0].Encode(purpose+":"+name, plain)
}

// Open opens what Seal made for the same purpose and name. It also says whether the first key sealed it.
func (s *Sealer) Open(purpose, name, value string) (plain []byte, current, ok bool) {
	// One value, one spelling: base64 whose unused bits are set would decode to the same bytes.
	if _, err := base64.URLEncoding.Strict().DecodeString(value); err != nil {
		return nil, false, false
	}
	for i, c := range s.codecs {
		if c.Decode(purpose+":"+name, value, &plain) == nil {
			return plain, i == 0, true
		}
	}
	return nil, false, false
}

// raw hands bytes through. It copies, because securecookie encrypts in place.
type raw struct{}

func (raw) Serialize(src any) ([]byte, error) { return append([]byte(nil), src.([]byte)...), nil }

func (raw) Deserialize(src []byte, dst any) error {
	*dst.(*[]byte) = append([]byte(nil), src...)
	return nil
}
