package assertion

import "net/http"

// What the vectors of RFC 9421 need beyond the form of our own signatures: other labels and components.

type Component = component

// NewComponent returns the component with that name and parameters.
func NewComponent(name, params string) Component { return component{name, params} }

func (c component) Name() string   { return c.name }
func (c component) Params() string { return c.params }

// RequestComponents finds the values of the components of a request.
func RequestComponents(req *http.Request) func(Component) (string, error) {
	return componentsOf(req, "https", req.Host)
}

// SignatureBaseOf is the signature base for a member of Signature-Input.
func SignatureBaseOf(field, label string, value func(Component) (string, error)) ([]byte, error) {
	in, err := parseSignatureInput(field, label)
	if err != nil {
		return nil, err
	}
	return signatureBase(in.components, in.text, value)
}

// SerializeInput reads a Signature-Input field with our label and writes it again.
func SerializeInput(field string, serialize func(components []Component, created, expires int64, nonce, keyID, alg, tag string) string) (string, error) {
	in, err := parseSignatureInput(field, Label)
	if err != nil {
		return "", err
	}
	return serialize(in.components, in.created, in.expires, in.nonce, in.keyID, in.alg, in.tag), nil
}

// SignBase signs a signature base.
func (m *MessageSigner) SignBase(base []byte) ([]byte, error) { return m.sign(base) }

var (
	SignatureBase   = signatureBase
	ParseSignature  = parseSignature
	VerifySignature = verifySignature
)
