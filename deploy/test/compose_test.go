package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	compose "github.com/compose-spec/compose-go/v2/types"
)

func TestComposeKeepsTheAppToAuthproxy(t *testing.T) {
	dir, err := filepath.Abs("../compose")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "compose.yaml")
	project, err := loader.LoadWithContext(t.Context(), compose.ConfigDetails{WorkingDir: dir, ConfigFiles: []compose.ConfigFile{{Filename: file}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s has privileges, or can write to its file system", name)
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 {
			t.Errorf("%s has no limit of memory or processes", name)
		}
		for _, p := range s.Ports {
			if name != "authproxy" || p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s:%s, want nothing but authproxy, on this machine", name, p.HostIP, p.Published)
			}
		}
		if _, front := s.Networks["front"]; front != (name == "authproxy") {
			t.Errorf("%s is in the network front: %t", name, front)
		}
	}
	if !project.Networks["back"].Internal {
		t.Error("the network back leads out")
	}
	authproxy := project.Services["authproxy"]
	if _, err := os.Stat(filepath.Join(authproxy.Build.Context, authproxy.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	if v := authproxy.Volumes; len(v) != 1 || v[0].Source != filepath.Join(dir, "config") || v[0].Target != "/etc/authproxy" || !v[0].ReadOnly {
		t.Errorf("volumes = %v, want the configuration's directory, read-only", v)
	}

	config, err := os.ReadFile("../compose/config/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var given []string
	for _, s := range authproxy.Secrets {
		given = append(given, s.Source)
		if _, ok := project.Secrets[s.Source]; !ok {
			t.Errorf("there is no secret %s", s.Source)
		}
	}
	slices.Sort(given)
	if used := checkConfig(t, string(config)); !slices.Equal(used, given) {
		t.Errorf("the configuration reads %q, and gets %q", used, given)
	}
	redis := strings.Join(project.Services["redis"].Command, " ")
	if !strings.Contains(redis, `--requirepass "$(cat /run/secrets/redis-password)"`) || !strings.Contains(redis, "--maxmemory-policy noeviction") {
		t.Errorf("Redis runs with %s, want a password and no eviction", redis)
	}
}
