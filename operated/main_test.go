// Package operated_test looks at authproxy as its operators do: as processes that are reloaded, restarted and killed while
// people use them, while Redis and the provider come and go, and with HAProxy in front. Of the module nothing is imported but
// the development provider: what is tested is the binary.
package operated_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
)

// program is the binary under test, built by TestMain.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "authproxy-operated-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "authproxy")
	args := []string{"build", "-o", program}
	if underRaceDetector() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/authproxy")...)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\nbuilding authproxy: %v\n", out, err)
		return 1
	}
	flag.Set("test.parallel", "4") // unless it is given: most of the time they wait
	return m.Run()
}

// underRaceDetector says whether these tests were built with -race: then the program is as well.
func underRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
