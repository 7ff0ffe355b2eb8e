package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// A File is what was found when a file was read. Two are equal when nothing has changed in between.
type File struct {
	Name string
	Sum  string // of its content, or of why it could not be read
}

// Now reads the file again. What counts is its content: times and sizes miss changes on some file systems, and files that
// are links to others.
func (f File) Now() File {
	text, err := readFile(f.Name, maxConfig)
	return newFile(f.Name, text, err)
}

func newFile(name string, text []byte, err error) File {
	if err != nil {
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	return File{name, string(sum[:])}
}

// read reads a file that the configuration names, and notes what it found.
func (l *loader) read(name string) ([]byte, error) {
	path := l.path(name)
	text, err := readFile(path, maxFile)
	if f := newFile(path, text, err); !slices.Contains(l.files, f) {
		l.files = append(l.files, f)
	}
	return text, err
}

// readFile reads a file of at most limit bytes. Its error says why it could not, without the name.
func readFile(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, reason(err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("it is larger than %d KiB", limit>>10)
	}
	return b, nil
}

// reason is an error of package os without the operation and the path.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// filePath accepts a path and makes it relative to the file's directory.
func (l *loader) filePath(text string) (string, *fault) {
	if _, f := nonEmpty(text); f != nil {
		return "", f
	}
	return l.path(text), nil
}

// contents reads the file that a value names.
func (l *loader) contents(name string) ([]byte, *fault) {
	if _, f := nonEmpty(name); f != nil {
		return nil, f
	}
	b, err := l.read(name)
	if err != nil {
		return nil, &fault{problem: "cannot be read: " + err.Error(), hint: "check the path and that this user may read the file"}
	}
	return b, nil
}

// roots reads certificates that are trusted beside those of the system.
func (l *loader) roots(name string) (*x509.CertPool, *fault) {
	b, f := l.contents(name)
	if f != nil {
		return nil, f
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, &fault{problem: "holds no certificate", hint: "name a PEM file with BEGIN CERTIFICATE"}
	}
	return pool, nil
}

// privateKey reads the key of private_key_jwt: RSA of at least 2048 bits, ECDSA or Ed25519.
func (l *loader) privateKey(name string) (crypto.Signer, *fault) {
	b, f := l.contents(name)
	if f != nil {
		return nil, f
	}
	k, encrypted := parsePrivateKey(b)
	switch k := k.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 2048 { // RFC 7518 §3.3
			return k, nil
		}
	case *ecdsa.PrivateKey, ed25519.PrivateKey:
		return k, nil
	}
	if encrypted {
		return nil, &fault{problem: "holds an encrypted key, and nobody is there to type its password", hint: "name an unencrypted one, which openssl pkey makes of it"}
	}
	return nil, &fault{problem: "holds no private key that can be used", hint: "name a PEM file with an unencrypted RSA key of at least 2048 bits, an ECDSA or an Ed25519 key"}
}

// signingKey reads a key of our own.
func (l *loader) signingKey(name string) (*ecdsa.PrivateKey, *fault) {
	b, f := l.contents(name)
	if f != nil {
		return nil, f
	}
	found, _ := parsePrivateKey(b)
	k, ok := found.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, &fault{problem: "holds no P-256 private key", hint: "name an unencrypted PEM file as openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 writes it"}
	}
	return k, nil
}

// parsePrivateKey returns the first private key among the PEM blocks in b, in PKCS #8, SEC 1 or PKCS #1, or nil and whether it
// is encrypted.
func parsePrivateKey(b []byte) (key crypto.Signer, encrypted bool) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") { // such as EC PARAMETERS, which openssl writes first
			continue
		}
		if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			s, _ := k.(crypto.Signer)
			return s, false
		}
		if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return k, false
		}
		if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return k, false
		}
		return nil, block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") // RFC 5958, RFC 1421
	}
	return nil, false
}
