package main

import (
	"fmt"
	"os"
	"strings"

	"authproxy/config"
	"authproxy/convert"
)

// convertCommand prints the configuration that another proxy's comes to.
func convertCommand(e *environment, args []string) int {
	f := e.flags("convert")
	if status, ok := e.parse(f, args, 2); !ok {
		return status
	}
	if f.NArg() != 2 || f.Arg(0) != "oauth2-proxy" {
		fmt.Fprint(e.stderr, "authproxy: convert: want the name of a proxy, which is oauth2-proxy, and the file of its options\nhint: authproxy convert oauth2-proxy oauth2-proxy.cfg > config.yaml\n")
		return exitConfig
	}
	file := f.Arg(1)
	text, err := os.ReadFile(file)
	if err != nil {
		return e.fail(fmt.Errorf("convert: %w", err))
	}
	result, err := convert.OAuth2Proxy(text)
	if err != nil {
		return e.fail(fmt.Errorf("convert: %s: %w", file, err))
	}
	fmt.Fprintf(e.stdout, "# The options of %q, as authproxy convert has them. What it said about them is to be read before this is used.\n", file)
	e.stdout.Write(result.Config)
	for _, r := range result.Remarks {
		text := config.Mistake{File: file, Line: r.Line, Key: r.Option, Problem: r.Problem, Hint: r.Hint}.String()
		fmt.Fprintln(e.stderr, strings.TrimSuffix(text, "\nhint: ")) // not all have one
	}
	return exitOK
}
