package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"authproxy/frontproxies"
)

// printConfigCommand writes the configuration of a front proxy. Flags may come before and after its name.
func printConfigCommand(e *environment, args []string) int {
	f := e.flags("print-config")
	file := configFlag(f)
	if status, ok := e.parse(f, args, len(args)); !ok {
		return status
	}
	name := f.Arg(0)
	if f.NArg() > 1 {
		if status, ok := e.parse(f, f.Args()[1:], 0); !ok {
			return status
		}
	}
	if !slices.Contains(frontproxies.Names(), name) {
		problem := fmt.Sprintf("%q is no front proxy that we know", name)
		if name == "" {
			problem = "there is no front proxy"
		}
		fmt.Fprintf(e.stderr, "authproxy: print-config: %s\nhint: name one of %s\n", problem, strings.Join(frontproxies.Names(), ", "))
		return exitConfig
	}
	cfg, ok := e.load(*file)
	if !ok {
		return exitConfig
	}
	if cfg.ForwardAuth == nil {
		fmt.Fprintf(e.stderr, "authproxy: %s:%d: forward_auth: is missing: nobody may ask whether a request may pass\n"+
			"hint: write forward_auth: {}, which lets proxies on this machine ask; trust or shared_secret is for others\n", cfg.File, cfg.Line("forward_auth"))
		return exitConfig
	}
	var text bytes.Buffer
	if err := frontproxies.Print(&text, name, cfg); err != nil {
		return e.fail(err)
	}
	e.stdout.Write(text.Bytes())
	return exitOK
}
