package devprovider_test

import (
	"fmt"
	"net/http"
	"net/url"

	"authproxy/devprovider"
)

// A test of a relying party: ada signs in without seeing a page, and her ID token is not what it should be.
func ExampleStart() {
	provider, err := devprovider.Start(devprovider.Options{
		Clients: []devprovider.Client{{ID: "client", Secret: "a secret", Callbacks: []string{"http://127.0.0.1:8080/callback"}}},
		Users:   devprovider.DemoUsers(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer provider.Close()
	provider.Set(func(f *devprovider.Faults) {
		f.SignInAs = "ada"
		f.IDToken = func(t *devprovider.Token) { t.Claims["aud"] = "somebody else" }
	})

	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := browser.Get(provider.Issuer() + "authorize?response_type=code&client_id=client&redirect_uri=http://127.0.0.1:8080/callback&scope=openid&state=xyz")
	if err != nil {
		fmt.Println(err)
		return
	}
	res.Body.Close()
	callback, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(callback.Host, callback.Query().Get("state"), callback.Query().Has("code"), provider.Count("authorize"))
	// Output: 127.0.0.1:8080 xyz true 1
}
