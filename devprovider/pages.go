package devprovider

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"
)

//go:embed pages
var files embed.FS

var pages = template.Must(template.New("").ParseFS(files, "pages/*.html"))

// The bounds of what people type.
const (
	maxName     = 100 // characters
	maxEmail    = 254 // bytes, RFC 5321 §4.5.3.1.3
	minPassword = 8   // characters
	maxPassword = 72  // bytes
)

// A view is what a page shows.
type view struct {
	Title, Text string
	Issuer      string
	Client      string // the application that the user logs in to
	State, CSRF string
	Error       string // said at the field of that name
	Field       string

	Name, Email, Password string // what the fields say
	Connection, Brand     string
	Social, CanSignUp     bool
	Users                 []User
}

// page answers with a page for people. The form action is left open because Chromium holds it against the redirect after a
// POST, which goes to the client.
func (x *exchange) page(status int, name string, v view) {
	v.Issuer = x.r.Host
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, v); err != nil {
		panic(err) // a mistake in a template; net/http logs it
	}
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action *; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	x.w.WriteHeader(status)
	x.w.Write(b.Bytes())
}

// fail answers with a page that says what is wrong.
func (x *exchange) fail(status int, title, text string) {
	x.page(status, "message", view{Title: title, Text: text})
}

func (p *Provider) style(x *exchange) {
	x.w.Header().Set("Content-Type", "text/css; charset=utf-8")
	http.ServeFileFS(x.w, x.r, files, "pages/style.css")
}

// form finds the login that a page belongs to. For a POST the form must come from our page. When it returns nil, it has answered.
func (p *Provider) form(x *exchange) (string, *transaction) {
	id, t := p.transaction(x, x.r.Method == http.MethodGet)
	if t != nil && x.r.Method == http.MethodPost && !equal(x.r.PostForm.Get("csrf"), t.csrf) {
		x.fail(http.StatusForbidden, "Start again", "This form did not come from our page. Go back to the application and log in from there.")
		return "", nil
	}
	return id, t
}

// viewOf is what all pages of a login show.
func viewOf(id string, t *transaction, title string) view {
	c := t.request.client
	return view{Title: title, Client: cmp.Or(c.Name, c.ID), State: id, CSRF: t.csrf}
}

// allows reports whether the user may log in through a connection, and if not, goes to the page where she may.
func (p *Provider) allows(x *exchange, id string, t *transaction, connection string) bool {
	wanted := t.request.connection
	if wanted == "" || wanted == connection {
		return true
	}
	page := "u/social"
	if wanted == Database {
		page = "u/login"
	}
	x.redirect(http.StatusSeeOther, p.opts.Issuer+page+"?state="+id)
	return false
}

// loginPage asks for a user name and a password.
func (p *Provider) loginPage(x *exchange) {
	id, t := p.form(x)
	if t == nil || !p.allows(x, id, t, Database) {
		return
	}
	v := viewOf(id, t, "Log in")
	v.Social, v.CanSignUp, v.Name = t.request.connection == "", true, t.request.loginHint
	if p.opts.ShowUsers {
		p.mu.Lock()
		for _, u := range p.users {
			if u.Password != "" && u.Note != "" {
				v.Users = append(v.Users, u)
			}
		}
		p.mu.Unlock()
		for _, u := range v.Users {
			if u.Username == x.r.URL.Query().Get("user") { // a link in the list
				v.Name, v.Password = u.Username, u.Password
			}
		}
	}
	if x.r.Method == http.MethodGet {
		x.page(http.StatusOK, "login", v)
		return
	}
	form := x.r.PostForm
	if form.Get("action") == "deny" {
		p.deny(x, t)
		return
	}
	v.Name = form.Get("username")
	u, ok := p.checkPassword(v.Name, form.Get("password"))
	if !ok {
		v.Field, v.Error = "password", "Wrong user name or password."
		x.page(http.StatusBadRequest, "login", v)
		return
	}
	p.proved(x, id, u)
}

// checkPassword finds the user of that name or e-mail address.
func (p *Provider) checkPassword(name, password string) (User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		if email, _ := u.Claims["email"].(string); u.Connection == Database && (u.Username == name || name != "" && strings.EqualFold(email, name)) {
			return u, equal(u.Password, password)
		}
	}
	return User{}, false
}

// signupPage makes a user.
func (p *Provider) signupPage(x *exchange) {
	id, t := p.form(x)
	if t == nil || !p.allows(x, id, t, Database) {
		return
	}
	v := viewOf(id, t, "Sign up")
	v.Email = t.request.loginHint
	if x.r.Method == http.MethodGet {
		x.page(http.StatusOK, "signup", v)
		return
	}
	form := x.r.PostForm
	v.Email, v.Name = strings.TrimSpace(form.Get("email")), strings.TrimSpace(form.Get("name"))
	password := form.Get("password")
	address, err := mail.ParseAddress(v.Email)
	switch {
	case err != nil || address.Address != v.Email || len(v.Email) > maxEmail:
		v.Field, v.Error = "email", "That is not an e-mail address."
	case utf8.RuneCountInString(v.Name) > maxName:
		v.Field, v.Error = "name", "That name is too long."
	case utf8.RuneCountInString(password) < minPassword || len(password) > maxPassword:
		v.Field, v.Error = "password", "A password has at least 8 characters and at most 72 bytes."
	}
	if v.Error != "" {
		x.page(http.StatusBadRequest, "signup", v)
		return
	}
	u, problem := p.signUp(x, t, v.Email, v.Name, password)
	if problem != "" {
		v.Field, v.Error = "email", problem
		x.page(http.StatusBadRequest, "signup", v)
		return
	}
	p.proved(x, id, u)
}

// signUp adds a user, or says why not.
func (p *Provider) signUp(x *exchange, t *transaction, email, name, password string) (User, string) {
	subject := make([]byte, 12)
	rand.Read(subject)
	nickname, _, _ := strings.Cut(email, "@")
	u := User{
		Username: email, Password: password, Subject: "auth0|" + hex.EncodeToString(subject), Connection: Database,
		Claims: map[string]any{"email": email, "email_verified": false, "nickname": nickname, "name": cmp.Or(name, email),
			"updated_at": x.now.UTC().Format("2006-01-02T15:04:05.000Z")},
	}
	if a := t.request; a.invited && a.organization.ID != "" {
		u.Organizations = []string{a.organization.ID}
	}
	p.mu.Lock()
	taken := slices.ContainsFunc(p.users, func(other User) bool {
		known, _ := other.Claims["email"].(string)
		return strings.EqualFold(other.Username, email) || other.Connection == Database && strings.EqualFold(known, email)
	})
	full := len(p.users) >= maxUsers
	if !taken && !full {
		p.users = append(p.users, u)
	}
	p.mu.Unlock()
	switch {
	case taken:
		return u, "There is already a user with that e-mail address."
	case full:
		return u, "There are too many users already. Restart the provider to make room."
	}
	return u, ""
}

// socialPage stands in for another provider, such as Google: it asks which of its users there is.
func (p *Provider) socialPage(x *exchange) {
	id, t := p.form(x)
	if t == nil {
		return
	}
	v := viewOf(id, t, "Choose an account")
	v.Connection = cmp.Or(x.r.Form.Get("connection"), t.request.connection)
	if !p.allows(x, id, t, v.Connection) {
		return
	}
	v.Brand = v.Connection
	switch v.Connection {
	case Google:
		v.Brand = "Google"
	case GitHub:
		v.Brand = "GitHub"
	}
	p.mu.Lock()
	for _, u := range p.users {
		if u.Connection == v.Connection && u.Connection != Database {
			v.Users = append(v.Users, u)
		}
	}
	p.mu.Unlock()
	if x.r.Method == http.MethodGet {
		x.page(http.StatusOK, "social", v)
		return
	}
	if x.r.PostForm.Get("action") == "deny" {
		p.deny(x, t)
		return
	}
	i := slices.IndexFunc(v.Users, func(u User) bool { return u.Username == x.r.PostForm.Get("username") })
	if i < 0 {
		v.Error = "There is no such account."
		x.page(http.StatusBadRequest, "social", v)
		return
	}
	p.proved(x, id, v.Users[i])
}

// Label is what the pages call a user.
func (u User) Label() string {
	name, _ := u.Claims["name"].(string)
	return cmp.Or(name, u.Username)
}

// Initial is the first letter of the label, for a picture of the user.
func (u User) Initial() string {
	r, _ := utf8.DecodeRuneInString(strings.ToUpper(u.Label()))
	return string(r)
}

// Email is the user's e-mail address, "" when there is none.
func (u User) Email() string {
	email, _ := u.Claims["email"].(string)
	return email
}
