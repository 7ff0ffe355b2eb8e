package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"

	"authproxy/identity"
)

// A ticket is what the cookie holds when the session is kept in a store: 256 random bits that name the session, and the
// key that opens it. The store sees neither, only a hash of the first and what the second sealed.
type ticket struct {
	id  [32]byte
	key [32]byte
}

func newTicket() (t ticket) {
	rand.Read(t.id[:]) // never fails (crypto/rand)
	rand.Read(t.key[:])
	return t
}

// row is where a store keeps the session.
func (t ticket) row() [32]byte { return sha256.Sum256(t.id[:]) }

// tickets seals tickets for one cookie. It authenticates them, so that made-up tickets never reach a store.
type tickets struct {
	sealer *Sealer
	name   string
}

func (ts tickets) seal(t ticket) (string, error) {
	return ts.sealer.Seal(purposeTicket, ts.name, append(t.id[:], t.key[:]...))
}

func (ts tickets) open(value string) (t ticket, current, ok bool) {
	b, current, ok := ts.sealer.Open(purposeTicket, ts.name, value)
	if !ok || len(b) != len(t.id)+len(t.key) {
		return ticket{}, false, false
	}
	copy(t.id[:], b)
	copy(t.key[:], b[len(t.id):])
	return t, current, true
}

// aead seals the session of a ticket. Each write has a random nonce of 96 bits; a session is written far less often than
// the 2^32 times for which that is safe (NIST SP 800-38D §8.3).
func (t ticket) aead() (cipher.AEAD, error) {
	b, err := aes.NewCipher(t.key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

// encrypt returns the session as ciphertext bound to its row, so that rows cannot be exchanged.
func (t ticket) encrypt(s *Session) ([]byte, error) {
	plain, err := encode(s)
	if err != nil {
		return nil, err
	}
	a, err := t.aead()
	if err != nil {
		return nil, err
	}
	row := t.row()
	return a.Seal(nil, nil, plain, row[:]), nil
}

func (t ticket) decrypt(sealed []byte) (*Session, error) {
	a, err := t.aead()
	if err != nil {
		return nil, err
	}
	row := t.row()
	plain, err := a.Open(nil, nil, sealed, row[:])
	if err != nil {
		return nil, err
	}
	return decode(plain)
}

// A tagger makes the marks by which a store finds the sessions of a user without knowing whose they are.
type tagger struct {
	keys  [][]byte // the first marks, all find
	names []keyName
}

type tag [16]byte

// A keyName tells a key from others without giving it away.
type keyName [4]byte

func newTagger(sessionKeys [][]byte) (tagger, error) {
	var t tagger
	for _, k := range sessionKeys {
		derived, err := hkdf.Key(sha256.New, k, nil, "authproxy session index v1", 32)
		if err != nil {
			return tagger{}, err
		}
		name := mark(derived, 'k')
		t.keys, t.names = append(t.keys, derived), append(t.names, keyName(name[1:]))
	}
	if len(t.keys) == 0 {
		return tagger{}, errors.New("session: no key")
	}
	return t, nil
}

// has says whether t has the key of that name.
func (t tagger) has(name keyName) bool { return slices.Contains(t.names, name) }

// mark is the tag of a list of texts of one kind under a key: the kind, then a MAC. Lengths go in, so that no two lists
// look alike.
func mark(key []byte, kind byte, parts ...string) (t tag) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte{kind})
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	t[0] = kind
	copy(t[1:], h.Sum(nil))
	return t
}

// of are the tags of a session: of itself, of its user and of its session at the provider.
func (t tagger) of(s *Session) [3]tag { return tagsOf(t.keys[0], s) }

func tagsOf(k []byte, s *Session) [3]tag {
	return [3]tag{
		mark(k, 'i', s.ID),
		mark(k, 'u', s.Identity.Issuer, s.Identity.Subject),
		mark(k, 'p', s.Identity.Issuer, s.ProviderSID),
	}
}

// sought are, for each key, the tags that a session must have to be selected. It is empty when sel selects nothing.
func (t tagger) sought(sel Selector) (all [][]tag) {
	for _, k := range t.keys {
		var tags []tag
		if sel.ID != "" {
			tags = append(tags, mark(k, 'i', sel.ID))
		}
		if sel.Subject != "" {
			tags = append(tags, mark(k, 'u', sel.Issuer, sel.Subject))
		}
		if sel.ProviderSID != "" {
			tags = append(tags, mark(k, 'p', sel.Issuer, sel.ProviderSID))
		}
		if len(tags) > 0 {
			all = append(all, tags)
		}
	}
	return all
}

// A label stands for a selector where nobody may know whom it selects: the name of a key, and the tags by that key that a
// session must have to be selected, folded into one.
type label [len(keyName{}) + len(tag{})]byte

func (l label) key() keyName { return keyName(l[:]) }

func newLabel(key keyName, tags ...tag) (l label) {
	folded := l[copy(l[:], key[:]):]
	for _, t := range tags {
		subtle.XORBytes(folded, folded, t[:])
	}
	return l
}

// label is the label of sel; ok is false when sel selects nothing.
func (t tagger) label(sel Selector) (l label, ok bool) {
	sought := t.sought(sel)
	if len(sought) == 0 {
		return label{}, false
	}
	return newLabel(t.names[0], sought[0]...), true
}

// A sessionLabel is the label of a selector that selects a session.
type sessionLabel struct {
	label
	ofID bool // the selector has the session's ID
}

// labels are those of all selectors that select s.
func (t tagger) labels(s *Session) (all []sessionLabel) {
	for i, k := range t.keys {
		tags := tagsOf(k, s)
		id, user, provider := tags[0], tags[1], tags[2]
		add := func(ofID bool, tags ...tag) {
			all = append(all, sessionLabel{newLabel(t.names[i], tags...), ofID})
		}
		add(true, id)
		add(true, id, user)
		add(true, id, provider)
		add(true, id, user, provider)
		add(false, user)
		add(false, provider)
		add(false, user, provider)
	}
	return all
}

// infos seals what a store may say about sessions: with keys of ours, because tickets are with the browsers.
type infos struct{ aeads []cipher.AEAD } // the first seals, all open

func newInfos(sessionKeys [][]byte) (infos, error) {
	var n infos
	for _, k := range sessionKeys {
		derived, err := hkdf.Key(sha256.New, k, nil, "authproxy session info v1", 32)
		if err != nil {
			return infos{}, err
		}
		b, err := aes.NewCipher(derived)
		if err != nil {
			return infos{}, err
		}
		a, err := cipher.NewGCMWithRandomNonce(b)
		if err != nil {
			return infos{}, err
		}
		n.aeads = append(n.aeads, a)
	}
	if len(n.aeads) == 0 {
		return infos{}, errors.New("session: no key")
	}
	return n, nil
}

// about is what a store may say about s, in the form of a session: the rest of it is empty.
func about(s *Session) *Session {
	return &Session{ID: s.ID, Identity: &identity.Identity{Issuer: s.Identity.Issuer, Subject: s.Identity.Subject},
		Agent: s.Agent, Address: s.Address, Created: s.Created, Used: s.Used, Expires: s.Expires}
}

// seal binds the information to the session's row.
func (n infos) seal(row []byte, s *Session) ([]byte, error) {
	text, err := encode(about(s))
	if err != nil {
		return nil, err
	}
	return n.aeads[0].Seal(nil, nil, text, row), nil
}

func (n infos) open(row, sealed []byte) (i Info, ok bool) {
	for _, a := range n.aeads {
		text, err := a.Open(nil, nil, sealed, row)
		if err != nil {
			continue
		}
		s, err := decode(text)
		if err != nil {
			return Info{}, false
		}
		return Info{s.ID, s.Identity.Issuer, s.Identity.Subject, s.Agent, s.Address, s.Created, s.Used, s.Expires}, true
	}
	return Info{}, false
}
