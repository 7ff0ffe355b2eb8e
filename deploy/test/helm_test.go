package deploy_test

import (
	"slices"
	"strings"
	"testing"

	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

const chart = "../helm/authproxy"

// everything switches on whatever the chart can do.
const everything = `
config: |
  public_url: https://app.example.com
  provider: {issuer: https://id.example.com, client_id: x, client_secret: "${file:/run/secrets/authproxy/client-secret}"}
  session:
    keys: ["${file:/run/secrets/authproxy/session-key}"]
    store: redis
    redis: {url: "rediss://:${file:/run/secrets/authproxy/redis-password}@redis:6379/0"}
  upstream: http://app:80
  admin: {listen: ":9090", token: "${file:/run/secrets/authproxy/admin-token}"}
  shutdown: {delay: 5s}
image: {repository: registry.example.com/authproxy, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
autoscaling: {enabled: true, minReplicas: 3}
ingress: {enabled: true, className: nginx, annotations: {a.example.com/b: "c"}}
networkPolicy:
  egress:
    - to: [{podSelector: {matchLabels: {app.kubernetes.io/name: app}}}]
    - to: [{podSelector: {matchLabels: {app.kubernetes.io/name: redis}}}]
      ports: [{port: 6379}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
podAnnotations: {a: b}
nodeSelector: {a: b}
tolerations: [{key: a, operator: Exists}]
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone}}]}}
`

func values(t *testing.T, text string) (v map[string]any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// template is what "helm template" prints, without the notes.
func template(t *testing.T, release, text string) (string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ToRenderValues(c, values(t, text), chartutil.ReleaseOptions{Name: release, Namespace: "app", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return "", err
	}
	rendered, err := engine.Render(c, v)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for name, text := range rendered {
		if strings.HasSuffix(name, ".yaml") {
			b.WriteString("\n---\n" + text)
		}
	}
	return b.String(), nil
}

func TestHelmLintHasNothingToSay(t *testing.T) {
	for name, text := range map[string]string{"the chart's own values": "", "everything": everything} {
		t.Run(name, func(t *testing.T) {
			for _, m := range lint.AllWithKubeVersionAndSchemaValidation(chart, values(t, text), "app", nil, false).Messages {
				if m.Severity > support.InfoSev {
					t.Error(m)
				}
			}
		})
	}
}

func TestTheChartMakesWhatTheManifestsHave(t *testing.T) {
	for name, test := range map[string]struct {
		release, text        string
		ingresses, autoscale int
	}{
		"its own values": {release: "authproxy"},
		"everything":     {"shop", everything, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := template(t, test.release, test.text)
			if err != nil {
				t.Fatal(err)
			}
			objects, err := decode(text)
			if err != nil {
				t.Fatal(err)
			}
			d := checkDeployment(t, objects)
			if got := len(all[networkingv1.Ingress](d.objects)); got != test.ingresses {
				t.Errorf("%d Ingresses, want %d", got, test.ingresses)
			}
			if got := len(all[autoscalingv2.HorizontalPodAutoscaler](d.objects)); got != test.autoscale {
				t.Errorf("%d HorizontalPodAutoscalers, want %d", got, test.autoscale)
			}
		})
	}
}

// The container is the same whether kustomize or Helm makes it.
func TestTheChartAndTheManifestsRunTheSameContainer(t *testing.T) {
	container := func(text string) string {
		objects, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		spec := checkDeployment(t, objects).pods["Deployment/authproxy"].Spec
		spec.TopologySpreadConstraints = nil
		for i := range spec.Containers {
			spec.Containers[i].Image, spec.Containers[i].ImagePullPolicy = "", ""
		}
		for _, v := range spec.Volumes {
			if v.ConfigMap != nil {
				v.ConfigMap.Name = ""
			}
		}
		out, err := yaml.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	text, err := template(t, "authproxy", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := container(text), container(kustomize(t, "../kubernetes/base")); got != want {
		t.Errorf("the chart's pod is\n%s\nwant that of deploy/kubernetes/base:\n%s", got, want)
	}
}

func TestTheChartRefusesValuesThatCannotWork(t *testing.T) {
	const base = "public_url: https://app.example.com\n  "
	for name, test := range map[string]struct{ values, want string }{
		"a misspelt value":               {"replicaCount: 2", "replicaCount"},
		"no configuration":               {"config: ''", "config"},
		"a number that is a text":        {"replicas: '2'", "replicas"},
		"a digest that is none":          {"image: {digest: latest}", "digest"},
		"broken YAML":                    {"config: |\n  " + base + "a: [", "config is not YAML"},
		"another port":                   {"config: |\n  " + base + "listen: ':80'\n  admin: {listen: ':9090'}", `listen must be ":8080"`},
		"probes that cannot get in":      {"config: |\n  " + base + "admin: {listen: '127.0.0.1:9090'}", `admin.listen must be ":9090"`},
		"no admin listener at all":       {"config: |\n  " + base, `admin.listen must be ":9090"`},
		"replicas without Redis":         {"replicas: 2", "several replicas need redis"},
		"autoscaling without Redis":      {"autoscaling: {enabled: true}", "several replicas need redis"},
		"sessions on a disk it does not": {"config: |\n  " + base + "session: {store: file}\n  admin: {listen: ':9090'}", "needs a disk"},
		"a policy that lets all in":      {"networkPolicy: {from: []}", "from"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := template(t, "authproxy", test.values); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("helm template = %v, want %s", err, test.want)
			}
		})
	}
}

func TestTheChartsVersionIsARelease(t *testing.T) {
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Metadata.AppVersion, "v") || c.Metadata.AppVersion != "v"+c.Metadata.Version {
		t.Errorf("version = %s, appVersion = %s, want the same with a v", c.Metadata.Version, c.Metadata.AppVersion)
	}
	if !slices.ContainsFunc(c.Raw, func(f *helmchart.File) bool { return f.Name == "values.schema.json" }) {
		t.Error("there is no values.schema.json")
	}
}
