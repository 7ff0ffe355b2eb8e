package proxy

import (
	"errors"
	"net/http"
	"strings"

	"authproxy/proxy/pages"
	"authproxy/session"
)

// sessionsPage shows users their own sessions and ends those that they choose: one, or all but the one they are in. It is for
// stores that know which sessions there are.
func (p *Proxy) sessionsPage(x *exchange) error {
	if !p.opts.Sessions.Lists() {
		return &failure{page: pages.NotFound(p.home()), code: "not_found", reason: "the cookie store keeps no list of sessions"}
	}
	who, err := p.authenticate(x)
	if err != nil {
		return err
	}
	if who.session == nil {
		if navigation(x.r) && p.opts.SignInPage {
			x.reason = "not signed in"
			p.page(x, http.StatusUnauthorized, p.signInPage(p.opts.Prefix+"/sessions"))
			return nil
		}
		if navigation(x.r) {
			return &redirect{http.StatusFound, p.loginURL(p.opts.Prefix+"/sessions", ""), "not signed in"}
		}
		return p.notSignedIn()
	}
	x.who = who.Identity
	own := session.Selector{Issuer: who.Issuer, Subject: who.Subject}
	if x.r.Method == http.MethodPost {
		ended, err := p.endOwn(x, who, own)
		if err != nil {
			return err
		}
		return &redirect{http.StatusSeeOther, p.opts.Prefix + "/sessions?ended=" + ended, "sessions ended by their user"} // a reload ends nothing more
	}
	q, err := onceQuery(x.target.query, "ended")
	if err != nil {
		return p.badRequest(err)
	}
	all, err := p.opts.Sessions.List(x.r.Context(), own)
	if err != nil {
		return p.storeFailure(err)
	}
	page := pages.Sessions{Host: p.opts.PublicURL.Host, Action: p.formURL("/sessions", who.session), HomeURL: p.home(),
		Notice: map[string]string{"one": "The session has ended.", "others": "All other sessions have ended."}[q["ended"]]}
	for _, s := range all {
		page.Sessions = append(page.Sessions, pages.Session{ID: s.ID, Current: s.ID == who.session.ID, Device: device(s.Agent), Address: s.Address,
			SignedInAt: s.Created, UsedAt: s.Used, ExpiresAt: s.Expires})
	}
	p.page(x, http.StatusOK, page)
	return nil
}

// endOwn ends what the form names, one or the others, and says which. Sessions of somebody else are not selected, whatever the form says.
func (p *Proxy) endOwn(x *exchange, who visitor, own session.Selector) (ended string, err error) {
	q, err := onceQuery(x.target.query, "confirm")
	if err != nil {
		return "", p.badRequest(err)
	}
	if !p.sameOrigin(x.r) && !p.confirmed(x, q["confirm"]) {
		return "", &failure{page: pages.CrossSite(p.home()), code: "cross_site", reason: "another site posted to /sessions"}
	}
	form, err := readForm(x, 8<<10)
	if err != nil {
		return "", p.badRequest(err)
	}
	var ids []string
	switch id := form.Get("id"); {
	case form.Get("others") == "true":
		all, err := p.opts.Sessions.List(x.r.Context(), own)
		if err != nil {
			return "", p.storeFailure(err)
		}
		for _, s := range all {
			if s.ID != who.session.ID {
				ids = append(ids, s.ID)
			}
		}
		ended = "others"
	case id == "" || id == who.session.ID:
		return "", p.badRequest(errors.New("the form names no other session"))
	default:
		ids = []string{id}
		ended = "one"
	}
	for _, id := range ids {
		sel := own
		sel.ID = id
		if err := p.opts.Sessions.End(x.r.Context(), sel); err != nil {
			return "", p.storeFailure(err)
		}
	}
	p.streams.ended()
	return ended, nil
}

// device says in two words what a User-Agent is, for people to recognise. Order counts: browsers name each other.
func device(agent string) string {
	find := func(names [][2]string) string {
		for _, n := range names {
			if strings.Contains(agent, n[0]) {
				return n[1]
			}
		}
		return ""
	}
	browser := find([][2]string{{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser", "Samsung Internet"}, {"Firefox", "Firefox"}, {"FxiOS", "Firefox"},
		{"CriOS", "Chrome"}, {"Chrom", "Chrome"}, {"Safari", "Safari"}, {"curl", "curl"}})
	system := find([][2]string{{"Windows", "Windows"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Mac OS", "macOS"}, {"Linux", "Linux"}})
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	}
	return system
}
