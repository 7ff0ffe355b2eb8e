package assertion_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"authproxy/assertion"
)

// The messages and keys of RFC 9421 Appendix B.
const (
	rfcRequest = "POST /foo?param=Value&Pet=dog HTTP/1.1\r\n" +
		"Host: example.com\r\n" +
		"Date: Tue, 20 Apr 2021 02:07:55 GMT\r\n" +
		"Content-Type: application/json\r\n" +
		"Content-Digest: sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\r\n" +
		"Content-Length: 18\r\n" +
		"\r\n" +
		`{"hello": "world"}`
	rfcResponse = "HTTP/1.1 200 OK\r\n" +
		"Date: Tue, 20 Apr 2021 02:07:56 GMT\r\n" +
		"Content-Type: application/json\r\n" +
		"Content-Digest: sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\r\n" +
		"Content-Length: 23\r\n" +
		"\r\n" +
		`{"message": "good dog"}`

	rfcRSAPSS = `MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+` +
		`oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHqgDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5WUtzd` +
		`piy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI2wIDAQAB`
	rfcP256           = `MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==`
	rfcEd25519Private = `MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF`
	rfcEd25519Public  = `MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=`
	rfcSharedSecret   = `uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==`
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func publicKey(t testing.TB, der string) any {
	t.Helper()
	k, err := x509.ParsePKIXPublicKey(unbase64(t, der))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rfcValue finds the components of the vectors: those of requests that we sign, and the others here.
func rfcValue(t testing.TB) (request, response func(assertion.Component) (string, error)) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(rfcRequest)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Length", fmt.Sprint(req.ContentLength)) // ReadRequest moved it to the field
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(rfcResponse)), nil)
	if err != nil {
		t.Fatal(err)
	}
	ours := assertion.RequestComponents(req)
	request = func(c assertion.Component) (string, error) {
		if c == assertion.NewComponent("@query-param", `;name="Pet"`) {
			return req.URL.Query().Get("Pet"), nil
		}
		return ours(c)
	}
	response = func(c assertion.Component) (string, error) {
		if c.Name() == "@status" {
			return fmt.Sprint(resp.StatusCode), nil
		}
		return resp.Header.Get(c.Name()), nil
	}
	return request, response
}

// RFC 9421 B.2.5 and B.2.6: the two algorithms that give the same signature every time.
func TestSigningGivesTheSignaturesOfTheRFC(t *testing.T) {
	private, err := x509.ParsePKCS8PrivateKey(unbase64(t, rfcEd25519Private))
	if err != nil {
		t.Fatal(err)
	}
	request, _ := rfcValue(t)
	for _, tt := range []struct {
		name, label, algorithm     string
		private, public            any
		input, base, wantSignature string
	}{
		{
			"B.2.5", "sig-b25", assertion.HMACSHA256, unbase64(t, rfcSharedSecret), unbase64(t, rfcSharedSecret),
			`sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
			`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@authority": example.com
"content-type": application/json
"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`,
			`sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:`,
		},
		{
			"B.2.6", "sig-b26", assertion.Ed25519, private.(ed25519.PrivateKey), publicKey(t, rfcEd25519Public),
			`sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
			`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@method": POST
"@path": /foo
"@authority": example.com
"content-type": application/json
"content-length": 18
"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
			`sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, err := assertion.SignatureBaseOf(tt.input, tt.label, request)
			if err != nil {
				t.Fatal(err)
			}
			if string(base) != tt.base {
				t.Errorf("signature base:\n%s\nwant:\n%s", base, tt.base)
			}
			m, err := assertion.NewMessageSigner(tt.algorithm, "k", tt.private)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := m.SignBase(base)
			if err != nil {
				t.Fatal(err)
			}
			want, err := assertion.ParseSignature(tt.wantSignature, tt.label)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sig, want) {
				t.Errorf("signature %x, want %x", sig, want)
			}
			if err := assertion.VerifySignature(tt.algorithm, tt.public, base, want); err != nil {
				t.Errorf("the signature of the RFC: %v", err)
			}
		})
	}
}

// RFC 9421 B.2.2 and B.2.4: signatures with a random part, over components of other kinds.
func TestSignaturesOfTheRFCVerifyOverOurBase(t *testing.T) {
	request, response := rfcValue(t)
	base, err := assertion.SignatureBaseOf(`sig-b24=("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"`, "sig-b24", response)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := assertion.ParseSignature(`sig-b24=:wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw==:`, "sig-b24")
	if err != nil {
		t.Fatal(err)
	}
	if err := assertion.VerifySignature(assertion.ECDSAP256SHA256, publicKey(t, rfcP256), base, sig); err != nil {
		t.Errorf("B.2.4: %v; base:\n%s", err, base)
	}

	base, err = assertion.SignatureBaseOf(`sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`, "sig-b22", request)
	if err != nil {
		t.Fatal(err)
	}
	sig, err = assertion.ParseSignature("sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT"+
		"8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ9"+
		"9PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:", "sig-b22")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(base)
	if err := rsa.VerifyPSS(publicKey(t, rfcRSAPSS).(*rsa.PublicKey), crypto.SHA512, sum[:], sig, nil); err != nil {
		t.Errorf("B.2.2: %v; base:\n%s", err, base)
	}
}
