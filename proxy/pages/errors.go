package pages

import "net/http"

// The standard situations, in words for the person in the browser. None of them says why something went wrong beyond what
// that person can act on: the cause is in the log under the request ID. An action whose URL is "" is left out.

// LinkExpired is for a callback that matches no login of this browser, after one restart has not helped.
func LinkExpired(againURL string) Error {
	return Error{
		Status:  http.StatusBadRequest,
		Title:   "Sign-in link expired",
		Message: "We could not match this sign-in to this browser. It may be too old, already used, or your browser blocked our cookie.",
		Advice:  "Start again from here. If you opened a link from an e-mail, open it in the browser where you started.",
		Actions: actions(again("Sign in again", againURL)),
	}
}

// Denied is for a provider that refused the sign-in. Description is its error_description; it is shown as a quotation.
func Denied(description, anotherAccountURL, homeURL string) Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "Access denied",
		Message: "Your identity provider refused the sign-in.",
		Quote:   description,
		Advice:  "You can try another account, or ask the people who run this site for access.",
		Actions: actions(again("Use another account", anotherAccountURL), home(homeURL)),
	}
}

// LoginFailed is for an answer of the provider that does not pass our checks.
func LoginFailed(againURL, homeURL string) Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "We could not sign you in",
		Message: "The answer of your identity provider did not pass our checks.",
		Advice:  "Please sign in once more. If it stays, tell the people who run this site, and give them the request ID.",
		Actions: actions(again("Sign in again", againURL), home(homeURL)),
	}
}

// CookieTwice is for a browser that sent two session cookies, of which we believe neither. BackURL is where it wanted to go.
func CookieTwice(backURL string) Error {
	return Error{
		Status:  http.StatusBadRequest,
		Title:   "Your session is ambiguous",
		Message: "Your browser sent two sessions for this site, so we used neither of them.",
		Advice:  "We asked your browser to forget both. If you see this page again, delete the cookies of this site and its neighbours.",
		Actions: actions(again("Go on", backURL)),
	}
}

// CookiesBlocked is for a browser that did not return our cookie twice in a row. Host is the app's.
func CookiesBlocked(host, againURL string) Error {
	advice := "Allow cookies for this site in your browser, or leave private browsing, then sign in again."
	if host != "" {
		advice = "Allow cookies for " + Text(host, maxText) + " in your browser, or leave private browsing, then sign in again."
	}
	return Error{
		Status:  http.StatusBadRequest,
		Title:   "Cookies are blocked",
		Message: "This site cannot keep you signed in because the browser did not return our cookie.",
		Advice:  advice,
		Actions: actions(again("Sign in again", againURL)),
	}
}

// Unavailable is for a provider that cannot be reached or does not work. Send Retry-After with it.
func Unavailable(againURL string) Error {
	return Error{
		Status:  http.StatusServiceUnavailable,
		Title:   "Sign-in is temporarily unavailable",
		Message: "We cannot reach the service that signs you in.",
		Advice:  "This usually passes in a few minutes. People who are signed in already can go on working.",
		Actions: actions(again("Try again", againURL)),
	}
}

// Misconfigured is for a login that cannot work until somebody changes a setting here or at the provider.
func Misconfigured(homeURL string) Error {
	return Error{
		Status:  http.StatusInternalServerError,
		Title:   "Configuration problem",
		Message: "Sign-in is not set up correctly on this site.",
		Advice:  "You cannot solve this yourself. Please tell the people who run this site, and give them the request ID.",
		Actions: actions(home(homeURL)),
	}
}

// Forbidden is for a user who is signed in and may not use a page. DisplayName and email say who that is; both may be "".
func Forbidden(displayName, email, anotherAccountURL, homeURL string) Error {
	who := Text(displayName, maxText)
	switch mail := Text(email, maxText); {
	case who == "" || who == mail:
		who = mail
	case mail != "":
		who += " (" + mail + ")"
	}
	message := "Your account has no access to this page."
	if who != "" {
		message = "You are signed in as " + who + ". This account has no access to this page."
	}
	return Error{
		Status:  http.StatusForbidden,
		Title:   "No access",
		Message: message,
		Advice:  "If you need it, ask the people who run this site, or use another account.",
		Actions: actions(Action{Label: "Back to your account", URL: homeURL, Primary: true}, Action{Label: "Use another account", URL: anotherAccountURL}),
	}
}

// NotAllowedToAsk is for whoever asks for a decision as a front proxy does, and is none that is trusted.
func NotAllowedToAsk() Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "Not for browsers",
		Message: "Only the proxies in front of this site may ask here.",
	}
}

// IdentityTooLarge is for a user of whom an app would get more than front proxies take.
func IdentityTooLarge() Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "Your account is too large",
		Message: "Your account carries more information than can be passed on to this page.",
		Advice:  "You cannot solve this yourself. Please tell the people who run this site, and give them the request ID.",
	}
}

// LoginNeeded is for a page that needs a sign-in and does not start one by itself.
func LoginNeeded(loginURL string) Error {
	return Error{
		Status:  http.StatusUnauthorized,
		Title:   "Sign-in needed",
		Message: "You are not signed in, and this page is only for people who are.",
		Actions: actions(again("Sign in", loginURL)),
	}
}

// StepUpFailed is for a page that asks for a fresh or stronger sign-in, when the provider answered with less.
func StepUpFailed(againURL, homeURL string) Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "Please confirm that it is you",
		Message: "This page needs a fresh sign-in, and your identity provider did not ask you for one.",
		Advice:  "Sign in again and enter your password or second factor when asked.",
		Actions: actions(again("Sign in again", againURL), home(homeURL)),
	}
}

// SessionTooLarge is for a user of whom the provider says more than a session can hold.
func SessionTooLarge(homeURL string) Error {
	return Error{
		Status:  http.StatusInternalServerError,
		Title:   "Your account is too large",
		Message: "Your account carries more information than this site can store in your browser.",
		Advice:  "You cannot solve this yourself. Please tell the people who run this site, and give them the request ID.",
		Actions: actions(home(homeURL)),
	}
}

// StoreUnavailable is for sessions that cannot be read at the moment. Send Retry-After with it.
func StoreUnavailable(againURL string) Error {
	return Error{
		Status:  http.StatusServiceUnavailable,
		Title:   "Temporarily unavailable",
		Message: "We cannot check at the moment whether you are signed in. You have not been signed out.",
		Advice:  "Please try again in a minute.",
		Actions: actions(again("Try again", againURL)),
	}
}

// TooManyLogins is for a client that started more logins than allowed. Send Retry-After with it.
func TooManyLogins(againURL string) Error {
	return Error{
		Status:  http.StatusTooManyRequests,
		Title:   "Too many sign-ins",
		Message: "There have been too many attempts to sign in from your network.",
		Advice:  "Please wait a minute, then try again.",
		Actions: actions(again("Try again", againURL)),
	}
}

// SignedOutLocally is for a sign-out that took the session away from this browser while the store could not be told that it
// has ended. Send Retry-After with it.
func SignedOutLocally(loginURL, homeURL string) Error {
	return Error{
		Status:  http.StatusServiceUnavailable,
		Title:   "Sign-out is not complete",
		Message: "This browser is signed out, but we could not confirm that your session has ended everywhere.",
		Advice:  "If you think that somebody else could be using it, sign in and out again in a few minutes.",
		Actions: actions(again("Sign in again", loginURL), home(homeURL)),
	}
}

// NotFound is for an address that leads nowhere.
func NotFound(homeURL string) Error {
	return Error{
		Status:  http.StatusNotFound,
		Title:   "Page not found",
		Message: "There is nothing at this address.",
		Advice:  "Check it for typing errors, or start from the home page.",
		Actions: actions(Action{Label: "Home", URL: homeURL, Primary: true}),
	}
}

// BadRequest is for a request that we refuse to interpret.
func BadRequest(homeURL string) Error {
	return Error{
		Status:  http.StatusBadRequest,
		Title:   "We could not read that request",
		Message: "The address or the form that your browser sent has something in it that this site does not accept.",
		Advice:  "If you followed a link, it may be damaged. Start from the home page.",
		Actions: actions(Action{Label: "Home", URL: homeURL, Primary: true}),
	}
}

// MethodNotAllowed is for an address that does not take this kind of request. Send Allow with it.
func MethodNotAllowed(homeURL string) Error {
	return Error{
		Status:  http.StatusMethodNotAllowed,
		Title:   "That does not work here",
		Message: "This address exists, but not for what your browser just tried.",
		Advice:  "Start from the home page.",
		Actions: actions(Action{Label: "Home", URL: homeURL, Primary: true}),
	}
}

// CrossSite is for a form or button of another site that would have changed something here.
func CrossSite(homeURL string) Error {
	return Error{
		Status:  http.StatusForbidden,
		Title:   "That came from another site",
		Message: "Another site tried to do something here in your name. We did nothing.",
		Advice:  "If it was you, do it again from this site.",
		Actions: actions(Action{Label: "Home", URL: homeURL, Primary: true}),
	}
}

// WrongHost is for a request under a host name that is not ours. AppURL is where the app is.
func WrongHost(appURL string) Error {
	return Error{
		Status:  http.StatusMisdirectedRequest,
		Title:   "Wrong address",
		Message: "This site is not reachable under this name.",
		Advice:  "Use the address that you were given for it.",
		Actions: actions(Action{Label: "Go to the app", URL: appURL, Primary: true}),
	}
}

// BadGateway is for an app that cannot be reached.
func BadGateway(againURL string) Error {
	return Error{
		Status:  http.StatusBadGateway,
		Title:   "The app does not answer",
		Message: "We could not reach the app behind this page.",
		Advice:  "It may be restarting. Please try again in a minute.",
		Actions: actions(again("Try again", againURL)),
	}
}

// GatewayTimeout is for an app that takes too long.
func GatewayTimeout(againURL string) Error {
	return Error{
		Status:  http.StatusGatewayTimeout,
		Title:   "The app takes too long",
		Message: "The app behind this page did not answer in time.",
		Advice:  "What you asked for may still be under way. Look before you send a form twice.",
		Actions: actions(again("Try again", againURL)),
	}
}

// Internal is for a mistake of our own.
func Internal(againURL, homeURL string) Error {
	return Error{
		Status:  http.StatusInternalServerError,
		Title:   "Something went wrong",
		Message: "This is a mistake on our side, not on yours.",
		Advice:  "Please try again. If it stays, tell the people who run this site, and give them the request ID.",
		Actions: actions(again("Try again", againURL), home(homeURL)),
	}
}

func again(label, url string) Action { return Action{Label: label, URL: url, Primary: true} }

func home(url string) Action { return Action{Label: "Home", URL: url} }

// actions leaves out those that lead nowhere.
func actions(all ...Action) []Action {
	var kept []Action
	for _, a := range all {
		if a.URL != "" {
			kept = append(kept, a)
		}
	}
	return kept
}
