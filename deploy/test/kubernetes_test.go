package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kustomize is what "kubectl kustomize" prints.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// overlay is an overlay, decoded and checked.
func overlay(t *testing.T, name string) *deployment {
	t.Helper()
	objects, err := decode(kustomize(t, filepath.Join("../kubernetes/overlays", name)))
	if err != nil {
		t.Fatal(err)
	}
	return checkDeployment(t, objects)
}

// want is the one object of its type with that name.
func want[T any](t *testing.T, d *deployment, is func(*T) bool) *T {
	t.Helper()
	found := all[T](d.objects)
	i := slices.IndexFunc(found, is)
	if i < 0 {
		t.Fatalf("there is no such %T among %d", *new(T), len(found))
	}
	return found[i]
}

func TestEveryDirectoryOfManifestsIsTested(t *testing.T) {
	entries, err := os.ReadDir("../kubernetes/overlays")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := []string{"envoy-gateway", "gateway-api", "ingress-nginx", "sidecar", "standalone", "traefik"}; !slices.Equal(got, want) {
		t.Errorf("overlays = %q, want %q", got, want)
	}
}

func TestTheBaseStandsAlone(t *testing.T) {
	objects, err := decode(kustomize(t, "../kubernetes/base"))
	if err != nil {
		t.Fatal(err)
	}
	checkDeployment(t, objects)
}

func TestStandaloneHasTwoReplicasWithSessionsInRedis(t *testing.T) {
	d := overlay(t, "standalone")
	if len(all[autoscalingv2.HorizontalPodAutoscaler](d.objects)) != 1 || d.pods["StatefulSet/authproxy-redis"] == nil || d.services["authproxy-redis"] == nil {
		t.Error("there is no autoscaler or no Redis")
	}
	if !strings.Contains(d.config, "@authproxy-redis:6379/0") {
		t.Errorf("the configuration does not lead to that Redis:\n%s", d.config)
	}
	redis := strings.Join(d.pods["StatefulSet/authproxy-redis"].Spec.Containers[0].Args, " ")
	if !strings.Contains(redis, "--maxmemory-policy noeviction") || !strings.Contains(redis, "--requirepass $(REDIS_PASSWORD)") {
		t.Errorf("Redis runs with %s, want a password and no eviction", redis)
	}
	checkAppPolicy(t, d, "app.kubernetes.io/name", "authproxy")
}

// checkAppPolicy checks that nobody reaches the app but who has that label: a pod, or any in the namespace.
func checkAppPolicy(t *testing.T, d *deployment, label, value string) {
	t.Helper()
	p := want(t, d, func(p *networkingv1.NetworkPolicy) bool { return p.Name == "app" })
	if len(p.Spec.Ingress) != 1 || len(p.Spec.Ingress[0].From) != 1 {
		t.Fatalf("NetworkPolicy/app lets in %v, want one", p.Spec.Ingress)
	}
	from := p.Spec.Ingress[0].From[0]
	switch {
	case from.PodSelector != nil && from.NamespaceSelector == nil && from.PodSelector.MatchLabels[label] == value:
	case from.PodSelector == nil && from.NamespaceSelector != nil && from.NamespaceSelector.MatchLabels[label] == value:
	default:
		t.Errorf("NetworkPolicy/app lets in %v, want %s=%s", from, label, value)
	}
}

func TestASidecarIsTheOnlyWayToItsApp(t *testing.T) {
	d := overlay(t, "sidecar")
	pod := want(t, d, func(*appsv1.Deployment) bool { return true }).Spec.Template.Spec
	if len(pod.Containers) != 2 {
		t.Fatalf("the pod has %d containers, want authproxy and the app", len(pod.Containers))
	}
	if !strings.Contains(d.config, "upstream: http://127.0.0.1:5000") {
		t.Errorf("the upstream is not in the pod:\n%s", d.config)
	}
	for _, c := range pod.Containers {
		if c.Name != "app" {
			continue
		}
		if len(c.Ports) > 0 {
			t.Errorf("the app has ports: %v", c.Ports)
		}
		if wait := c.Lifecycle.PreStop.Sleep.Seconds; wait <= d.delays || wait >= *pod.TerminationGracePeriodSeconds {
			t.Errorf("the app stops after %d s, want it to outlast authproxy, %d s, and to end before %d s", wait, d.delays, *pod.TerminationGracePeriodSeconds)
		}
	}
}

func TestIngressNginxAsksAboutEveryRequest(t *testing.T) {
	d := overlay(t, "ingress-nginx")
	checkAppPolicy(t, d, "kubernetes.io/metadata.name", "ingress-nginx")
	a := want(t, d, func(i *networkingv1.Ingress) bool { return i.Name == "app" })
	for name, value := range map[string]string{
		"auth-url":                   "http://authproxy." + a.Namespace + ".svc.cluster.local:8080/auth/verify/nginx",
		"auth-signin":                "https://app.example.com/auth/login?return_to=$escaped_request_uri",
		"auth-signin-redirect-param": "return_to",
		"auth-proxy-set-headers":     a.Namespace + "/authproxy-front-proxy",
	} {
		if got := a.Annotations["nginx.ingress.kubernetes.io/"+name]; got != value {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
	checkHeaders(t, strings.Split(a.Annotations["nginx.ingress.kubernetes.io/auth-response-headers"], ","))
	if !strings.Contains(d.config, "shared_secret: ${file:") || strings.Contains(d.config, "trust:") {
		t.Errorf("clients that reach /auth/verify/ through ingress-nginx must not be taken for it:\n%s", d.config)
	}
	own := want(t, d, func(i *networkingv1.Ingress) bool { return i.Name == "authproxy" })
	if p := own.Spec.Rules[0].HTTP.Paths; len(p) != 1 || p[0].Path != "/auth" || len(own.Annotations) > 0 {
		t.Errorf("Ingress/authproxy = %v %v, want /auth without asking", own.Annotations, p)
	}
}

func TestTraefikAsksAboutEveryRequest(t *testing.T) {
	d := overlay(t, "traefik")
	checkAppPolicy(t, d, "kubernetes.io/metadata.name", "traefik")
	m := want(t, d, func(*traefikMiddleware) bool { return true })
	if want := "http://authproxy." + m.Namespace + ".svc.cluster.local:8080/auth/verify/traefik"; m.Spec.ForwardAuth.Address != want {
		t.Errorf("address = %q, want %q", m.Spec.ForwardAuth.Address, want)
	}
	checkHeaders(t, m.Spec.ForwardAuth.AuthResponseHeaders)
	r := want(t, d, func(*traefikIngressRoute) bool { return true })
	for _, route := range r.Spec.Routes {
		switch name := route.Services[0].Name; {
		case name == "authproxy" && !strings.Contains(route.Match, "!PathPrefix(`/auth/verify`)"):
			t.Errorf("clients reach /auth/verify: %s", route.Match)
		case name == "app" && (len(route.Middlewares) != 1 || route.Middlewares[0].Name != m.Name):
			t.Errorf("the app is reached without asking: %s", route.Match)
		}
	}
	checkTrust(t, d, "traefik")
}

// checkTrust checks that, where addresses are trusted, nobody at these addresses but the front proxy gets to us.
func checkTrust(t *testing.T, d *deployment, namespace string) {
	t.Helper()
	if !strings.Contains(d.config, "trust: [10.0.0.0/8]") {
		t.Errorf("the front proxy is not trusted:\n%s", d.config)
	}
	p := want(t, d, func(p *networkingv1.NetworkPolicy) bool { return p.Name == "authproxy" })
	if from := p.Spec.Ingress[0].From; len(from) != 1 || from[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != namespace {
		t.Errorf("NetworkPolicy/authproxy lets in %v, want the namespace %s", from, namespace)
	}
}

// asks are the request headers that our decision depends on, beside those that Envoy sends by itself.
var asks = []string{"accept", "cookie", "origin", "purpose", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-purpose", "sec-websocket-key",
	"upgrade", "x-forwarded-for", "x-forwarded-proto", "x-moz", "x-purpose", "x-request-id", "x-requested-with"}

func TestEnvoyGatewayAsksAboutEveryRequest(t *testing.T) {
	d := overlay(t, "envoy-gateway")
	checkAppPolicy(t, d, "kubernetes.io/metadata.name", "envoy-gateway-system")
	checkTrust(t, d, "envoy-gateway-system")
	p := want(t, d, func(*envoySecurityPolicy) bool { return true }).Spec
	if len(p.TargetRefs) != 1 || p.TargetRefs[0].Name != "app" || p.TargetRefs[0].Kind != "HTTPRoute" {
		t.Errorf("targetRefs = %v, want HTTPRoute/app", p.TargetRefs)
	}
	if p.ExtAuth.FailOpen == nil || *p.ExtAuth.FailOpen || p.ExtAuth.HTTP.Path != "/auth/verify/envoy" || p.ExtAuth.HTTP.BackendRefs[0].Name != "authproxy" {
		t.Errorf("extAuth = %+v, want our endpoint, and no way past it", p.ExtAuth)
	}
	checkHeaders(t, p.ExtAuth.HTTP.HeadersToBackend)
	checkAsks(t, p.ExtAuth.HeadersToExtAuth)
	checkOwnRoute(t, d)
}

func checkAsks(t *testing.T, got []string) {
	t.Helper()
	if got = slices.Sorted(slices.Values(got)); !slices.Equal(got, asks) {
		t.Errorf("we get to see %q, want %q", got, asks)
	}
}

// checkOwnRoute checks that clients reach our endpoints but not the one that front proxies ask.
func checkOwnRoute(t *testing.T, d *deployment) {
	t.Helper()
	r := want(t, d, func(r *gatewayv1.HTTPRoute) bool { return r.Name == "authproxy" }).Spec.Rules
	if len(r) != 2 || *r[0].Matches[0].Path.Value != "/auth/verify" || len(r[0].BackendRefs) > 0 || r[0].Filters[0].RequestRedirect == nil || *r[1].Matches[0].Path.Value != "/auth" {
		t.Errorf("HTTPRoute/authproxy = %v, want /auth without /auth/verify", r)
	}
}

func TestAGatewayAsksAboutEveryRequest(t *testing.T) {
	d := overlay(t, "gateway-api")
	if n := len(all[envoySecurityPolicy](d.objects)); n > 0 {
		t.Errorf("%d SecurityPolicies, want none", n)
	}
	r := want(t, d, func(r *gatewayv1.HTTPRoute) bool { return r.Name == "app" })
	if len(r.Spec.Rules) != 1 || len(r.Spec.Rules[0].Filters) != 1 || r.Spec.Rules[0].Filters[0].ExternalAuth == nil {
		t.Fatalf("HTTPRoute/app = %+v, want one rule, which asks", r.Spec.Rules)
	}
	f := r.Spec.Rules[0].Filters[0].ExternalAuth
	if f.ExternalAuthProtocol != gatewayv1.HTTPRouteExternalAuthHTTPProtocol || f.BackendRef.Name != "authproxy" || f.HTTPAuthConfig.Path != "/auth/verify/envoy" {
		t.Errorf("externalAuth = %+v, want our endpoint", f)
	}
	checkHeaders(t, f.HTTPAuthConfig.AllowedResponseHeaders)
	checkAsks(t, f.HTTPAuthConfig.AllowedRequestHeaders)
	checkOwnRoute(t, d)
}
