package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// A visitor is somebody with a browser in front of a running demo.
type visitor struct {
	*demo
	*tab
}

// visit starts a demo and opens a browser.
func visit(t *testing.T) visitor {
	t.Helper()
	d := startDemo(t)
	return visitor{d, newBrowser(t).tab()}
}

// fillIn signs in with the provider's form, which the tab shows.
func (v visitor) fillIn(user string) {
	v.t.Helper()
	v.shows(providerPages, "Log in")
	v.fill("User name or e-mail address", user)
	v.fill("Password", v.passwords[user])
	v.click("Continue")
}

func TestAdaSignsInWithTheFormAndTheAppKnowsWhoSheIs(t *testing.T) {
	v := visit(t)
	v.open(v.url)
	v.fillIn("ada")
	page := v.shows(v.url+"/", "Hello, Ada Lovelace")
	if !strings.Contains(page.Text, "✓ verified The proxy says in a signed assertion who you are") {
		t.Errorf("the app does not say that the assertion is verified: %s", page.Text)
	}
	if page.URL != v.url+"/" {
		t.Errorf("the login ended at %s, want %s/", page.URL, v.url)
	}
	if left := slices.DeleteFunc(v.cookies(v.url), func(name string) bool { return name == "authproxy" || !strings.HasPrefix(name, "authproxy") }); len(left) > 0 {
		t.Errorf("cookies of the finished login are left: %q", left)
	}
}

func TestAfterSigningOutNobodyIsSignedInHereOrAtTheProvider(t *testing.T) {
	v := visit(t)
	v.open(v.url)
	v.fillIn("ada")
	v.shows(v.url+"/", "Hello, Ada Lovelace")
	v.click("Sign out")
	v.shows(v.url+"/auth/", "Sign in")
	v.open(v.url + "/public")
	v.shows(v.url+"/public", "Hello, visitor")
	v.open(v.url + "/admin")
	v.shows(providerPages, "Log in")
}

func TestANewUserSignsUp(t *testing.T) {
	v := visit(t)
	v.open(v.url + "/auth/")
	v.click("Create an account")
	v.shows(providerPages, "Sign up")
	v.fill("E-mail address", "hedy@example.com")
	v.fill("Name (optional)", "Hedy Lamarr")
	v.fill("Password", "frequency hopping")
	v.click("Create account")
	v.shows(v.url+"/", "Hello, Hedy Lamarr")
}

func TestWhoDeniesTheLoginIsOfferedAnotherAccount(t *testing.T) {
	v := visit(t)
	v.open(v.url + "/admin")
	v.shows(providerPages, "Log in")
	v.click("Deny access")
	v.shows(v.url+"/auth/callback", "Access denied")
	v.click("Use another account")
	v.fillIn("ada")
	v.shows(v.url+"/admin", "Hello, Ada Lovelace")
}

func TestEachButtonLeadsToItsAccounts(t *testing.T) {
	for _, test := range []struct{ button, account string }{
		{"Continue with Google", "Grace Hopper"},
		{"Continue with GitHub", "Linus"},
	} {
		t.Run(test.button, func(t *testing.T) {
			v := visit(t)
			v.open(v.url + "/auth/")
			v.shows(v.url+"/auth/", "Sign in")
			v.click(test.button)
			v.shows(providerPages, "Choose an account")
			v.click(test.account)
			v.shows(v.url+"/", "Hello, "+test.account)
		})
	}
}

func TestTwoTabsSignInAtTheSameTime(t *testing.T) {
	first := visit(t)
	second := visitor{first.demo, first.b.tab()}
	first.open(first.url + "/first")
	second.open(second.url + "/second")
	second.fillIn("ada")
	second.shows(second.url+"/second", "Hello, Ada Lovelace")
	first.fillIn("ada")
	first.shows(first.url+"/first", "Hello, Ada Lovelace")
	second.open(second.url + "/second")
	second.shows(second.url+"/second", "Hello, Ada Lovelace")
}

func TestTheBackButtonAndOldLinksDoNotUndoALogin(t *testing.T) {
	v := visit(t)
	v.open(v.url + "/public")
	v.open(v.url + "/first")
	v.fillIn("ada")
	v.shows(v.url+"/first", "Hello, Ada Lovelace")

	v.back() // to the provider's page, which is over: it leads to a new login, and the provider knows who it is
	v.shows(v.url+"/", "Hello, Ada Lovelace")

	logins := v.b.count("/authorize?")
	v.open(v.b.find(v.url + "/auth/callback?")) // out of the history: its code and state are used
	v.shows(v.url+"/", "Hello, Ada Lovelace")
	if n := v.b.count("/authorize?"); n != logins || n == 0 {
		t.Errorf("%d authorization requests after a used callback was opened, want %d as before", n, logins)
	}
}

func TestWhoMayNotUseAPageIsToldSoAndShownAWayOut(t *testing.T) {
	v := visit(t)
	v.open(v.url + "/admin")
	v.fillIn("bob")
	page := v.shows(v.url+"/admin", "No access")
	if !strings.Contains(page.Text, "You are signed in as Bob Kahn (bob@example.com).") {
		t.Errorf("the page does not say who bob is: %s", page.Text)
	}
	v.click("Back to your account")
	v.shows(v.url+"/auth/", "Hello, Bob Kahn")
	v.open(v.url + "/admin")
	v.shows(v.url+"/admin", "No access")
	v.click("Use another account")
	v.fillIn("ada")
	v.shows(v.url+"/admin", "Hello, Ada Lovelace")
}

func TestTheKeyboardAloneIsEnough(t *testing.T) {
	v := visit(t)
	tabTo := func(label string) {
		t.Helper()
		for range 20 {
			if v.state().Focus == label {
				return
			}
			v.press(kb.Tab)
		}
		t.Fatalf("20 times Tab did not reach %q: %s", label, v.describe())
	}
	v.open(v.url + "/auth/")
	tabTo("Sign in")
	v.press(kb.Enter)
	v.shows(providerPages, "Log in")
	if focus := v.state().Focus; focus != "User name or e-mail address" {
		t.Errorf("the focus of the login page is on %q, want the user name", focus)
	}
	v.press("ada" + kb.Tab + v.passwords["ada"] + kb.Enter)
	v.shows(v.url+"/", "Hello, Ada Lovelace")
	tabTo("Sign out")
	v.press(kb.Enter)
	v.shows(v.url+"/auth/", "Sign in")
}

// Chromium is told to block the cookies of the app and of nobody else: those of the provider come back, so that only a
// proxy that notices stands between the user and an endless loop.
func TestABrowserThatBlocksOurCookiesIsToldSoInsteadOfLooping(t *testing.T) {
	d := startDemo(t)
	b := newBrowserThat(t, map[string]any{"profile": map[string]any{"content_settings": map[string]any{"exceptions": map[string]any{
		"cookies": map[string]any{d.url + ",*": map[string]any{"setting": 2}},
	}}}})
	v := visitor{d, b.tab()}
	v.open(v.url)
	v.fillIn("ada")
	v.shows(v.url+"/auth/callback", "Cookies are blocked")
	if names := v.cookies(v.url); len(names) > 0 {
		t.Errorf("the browser has the cookies %q: it was meant to block them", names)
	}
	if n := b.count(v.url + "/auth/callback"); n != 2 {
		t.Errorf("the browser came back from the provider %d times, want 2", n)
	}
}

func TestOurPagesAreReadWithoutAComplaintOfTheBrowser(t *testing.T) {
	v := visit(t)
	for _, page := range []struct{ path, heading string }{
		{"/auth/", "Sign in"},
		{"/auth/nothing-here", "Page not found"},
		{"/auth/me", "Sign-in needed"},
		{"/auth/login?prompt=login&prompt=login", "We could not read that request"},
		{"/auth/callback?state=a&state=b", "Sign-in link expired"},
		{"/public", "Hello, visitor"},
	} {
		v.open(v.url + page.path)
		v.shows(v.url+page.path, page.heading)
	}
	v.open(v.url + "/admin")
	v.fillIn("ada")
	v.shows(v.url+"/admin", "Hello, Ada Lovelace")
	for _, page := range []struct{ path, heading string }{
		{"/", "Hello, Ada Lovelace"},
		{"/auth/", "Hello, Ada Lovelace"},
		{"/auth/nothing-here", "Page not found"},
	} {
		v.open(v.url + page.path)
		v.shows(v.url+page.path, page.heading)
	}
}
