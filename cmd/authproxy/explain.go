package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"authproxy/identity"
)

// explainCommand says what serve would decide, by the same code.
func explainCommand(e *environment, args []string) int {
	f := e.flags("explain")
	file := configFlag(f)
	method := f.String("method", "GET", "request `METHOD`")
	claims := f.String("claims", "", "ID token claims of a signed-in user, as `JSON` or @FILE; without it nobody is signed in")
	if status, ok := e.parse(f, args, 1); !ok {
		return status
	}
	wrong := ""
	if f.NArg() != 1 {
		wrong = "there is no URL"
	} else if to := f.Arg(0); !strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "http://") && !strings.HasPrefix(to, "https://") {
		wrong = fmt.Sprintf("%q begins neither with http:// or https:// nor with /", to)
	}
	if wrong != "" {
		fmt.Fprintf(e.stderr, "authproxy: explain: %s\nhint: authproxy explain -config FILE https://app.example.com/path\n", wrong)
		return exitConfig
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	a, err := build(cfg, slog.New(slog.DiscardHandler), closedStore)
	if err != nil {
		e.mistakes(err)
		return exitConfig
	}
	who := identity.Anonymous
	if *claims != "" {
		text := []byte(*claims)
		if name, ok := strings.CutPrefix(*claims, "@"); ok {
			if text, err = os.ReadFile(name); err != nil {
				fmt.Fprintf(e.stderr, "authproxy: explain: -claims: %v\nhint: name a readable file with a JSON object behind the @\n", err)
				return exitConfig
			}
		}
		if who, err = a.provider.IdentityOf(text); err != nil {
			fmt.Fprintf(e.stderr, "authproxy: explain: -claims: %v\nhint: give the claims of an ID token as a JSON object, with a sub\n", err)
			return exitConfig
		}
	}
	x, err := a.proxy.Explain(*method, f.Arg(0), who)
	if err != nil {
		fmt.Fprintf(e.stdout, "refused  %v\n", err)
		return exitDenied
	}
	fmt.Fprintf(e.stdout, "route     %s\npath      %s\n", x.Route, x.Path)
	for _, line := range x.Steps {
		fmt.Fprintf(e.stdout, "          %s\n", line)
	}
	switch {
	case x.Decision.Allowed:
		fmt.Fprintf(e.stdout, "allowed   %s\n", x.Decision.Reason)
		if x.Upstream != nil {
			fmt.Fprintf(e.stdout, "upstream  %s\n", x.Upstream)
		}
		return exitOK
	case x.Decision.Remedy != 0:
		fmt.Fprintf(e.stdout, "login     %s\n", x.Decision.Reason)
		return exitLogin
	}
	fmt.Fprintf(e.stdout, "denied    %s\n", x.Decision.Reason)
	return exitDenied
}
