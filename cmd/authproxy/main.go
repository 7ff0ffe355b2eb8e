// Command authproxy is an authenticating reverse proxy: it sends people who are not signed in through the login of an OpenID
// Provider and tells the app behind it, in signed headers, who they are.
//
// This package turns flags and files into the parts of a server, and owns listeners, signals and shutdown. What it does to a
// request is in package proxy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"authproxy/config"
	"authproxy/frontproxies"
)

// Exit statuses of the contract, section 1.
const (
	exitOK     = 0
	exitError  = 1
	exitConfig = 2
	exitDenied = 3
	exitLogin  = 4
)

// A command is one word after the program's name. Run returns the exit status.
type command struct {
	name, args, does string
	run              func(e *environment, args []string) int
}

func commands() []command {
	return []command{
		{"serve", "[-config FILE]", "run the proxy", serveCommand},
		{"demo", "[-listen 127.0.0.1:4180]", "try it: a provider, an app and the proxy in one process", demoCommand},
		{"check", "[-config FILE]", "check the configuration and print what to paste into the provider's settings", checkCommand},
		{"doctor", "[-config FILE]", "check what the configuration speaks of: provider, session store and apps", doctorCommand},
		{"explain", "[-config FILE] [-method GET] [-claims JSON|@FILE] URL", "say which route decides about a request, and how", explainCommand},
		{"print-config", strings.Join(frontproxies.Names(), "|") + " [-config FILE]", "print the configuration of a proxy that asks us, for forward_auth", printConfigCommand},
		{"keygen", "", "print a fresh session key", keygenCommand},
		{"sessions", "list|revoke [-config FILE] [-subject S] [-id ID] [-all]", "list or end sessions of the running proxy", sessionsCommand},
		{"verify", "[-config FILE] [-jwks URL|FILE] [-audience A] [-issuer I] TOKEN|-", "verify an assertion and print its claims", verifyCommand},
		{"convert", "oauth2-proxy FILE", "print the configuration that the options of oauth2-proxy come to", convertCommand},
		{"version", "", "print version, commit and Go version", versionCommand},
	}
}

// An environment is what commands see of the world.
type environment struct {
	ctx            context.Context
	stop           <-chan os.Signal
	stdin          io.Reader
	stdout, stderr io.Writer
}

func main() {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	os.Exit(run(&environment{context.Background(), stop, os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]))
}

// run finds the command. Flags alone are those of serve.
func run(e *environment, args []string) int {
	name := "serve"
	switch {
	case len(args) == 0:
	case args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help":
		usage(e.stdout)
		return exitOK
	case args[0] == "-version" || args[0] == "--version":
		name, args = "version", args[1:]
	case !strings.HasPrefix(args[0], "-"):
		name, args = args[0], args[1:]
	}
	for _, c := range commands() {
		if c.name == name {
			return c.run(e, args)
		}
	}
	fmt.Fprintf(e.stderr, "authproxy: %q is not a command\nhint: authproxy help lists them\n", name)
	return exitConfig
}

func usage(w io.Writer) {
	fmt.Fprint(w, "authproxy signs people in with an OpenID Provider and tells the app behind it who they are.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  authproxy %s\n        %s\n", strings.TrimSpace(c.name+" "+c.args), c.does)
	}
	fmt.Fprint(w, "\nFILE is -config, else $AUTHPROXY_CONFIG, else ./config.yaml.\n")
}

// flags is the flag set of a command, which says what is wrong in our words.
func (e *environment) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse parses the flags of a command that takes at most n arguments. When it returns false the command ends with status.
func (e *environment) parse(f *flag.FlagSet, args []string, n int) (status int, ok bool) {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		for _, c := range commands() {
			if c.name == f.Name() {
				fmt.Fprintf(e.stdout, "authproxy %s: %s\n", strings.TrimSpace(c.name+" "+c.args), c.does)
			}
		}
		f.SetOutput(e.stdout)
		f.PrintDefaults()
		return exitOK, false
	case err != nil:
	case f.NArg() > n:
		err = fmt.Errorf("unexpected argument %q", f.Arg(n))
	default:
		return 0, true
	}
	fmt.Fprintf(e.stderr, "authproxy: %s: %v\nhint: authproxy %s -help says what it takes\n", f.Name(), err, f.Name())
	return exitConfig, false
}

// configFlag adds -config.
func configFlag(f *flag.FlagSet) *string {
	return f.String("config", "", "configuration `FILE`; default $AUTHPROXY_CONFIG, then ./config.yaml")
}

// load reads the configuration, or says everything that is wrong with it.
func (e *environment) load(file string) (*config.Config, bool) {
	if file == "" {
		file = os.Getenv("AUTHPROXY_CONFIG")
	}
	if file == "" {
		file = "config.yaml"
	}
	cfg, err := config.Load(file, nil)
	if err == nil {
		return cfg, true
	}
	e.mistakes(err)
	return nil, false
}

// mistakes prints an error, one of the configuration with each of its mistakes.
func (e *environment) mistakes(err error) {
	var all config.Mistakes
	if errors.As(err, &all) {
		all.Print(e.stderr)
		return
	}
	fmt.Fprintf(e.stderr, "authproxy: %v\n", err)
}

// fail prints an error of running.
func (e *environment) fail(err error) int {
	e.mistakes(err)
	return exitError
}
