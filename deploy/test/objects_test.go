package deploy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Of these there are no types that a Go module can import: what the manifests use of them, by the reference documentation of
// Traefik 3 (CRD traefik.io/v1alpha1) and of Envoy Gateway 1 (gateway.envoyproxy.io/v1alpha1).
type (
	traefikMiddleware struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			ForwardAuth struct {
				Address             string   `json:"address"`
				AuthResponseHeaders []string `json:"authResponseHeaders"`
			} `json:"forwardAuth"`
		} `json:"spec"`
	}
	traefikIngressRoute struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			EntryPoints []string `json:"entryPoints"`
			TLS         struct {
				SecretName string `json:"secretName"`
			} `json:"tls"`
			Routes []struct {
				Kind        string           `json:"kind"`
				Match       string           `json:"match"`
				Middlewares []traefikService `json:"middlewares"`
				Services    []traefikService `json:"services"`
			} `json:"routes"`
		} `json:"spec"`
	}
	traefikService struct {
		Name string `json:"name"`
		Port int    `json:"port"`
	}
	envoySecurityPolicy struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			TargetRefs []gatewayv1.LocalPolicyTargetReference `json:"targetRefs"`
			ExtAuth    struct {
				FailOpen         *bool    `json:"failOpen"`
				HeadersToExtAuth []string `json:"headersToExtAuth"`
				HTTP             struct {
					BackendRefs      []gatewayv1.BackendObjectReference `json:"backendRefs"`
					Path             string                             `json:"path"`
					HeadersToBackend []string                           `json:"headersToBackend"`
				} `json:"http"`
			} `json:"extAuth"`
		} `json:"spec"`
	}
)

var types = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, gatewayv1.Install, monitoringv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}()

// object is a new value of the type that a manifest says it is of.
func object(t metav1.TypeMeta) (any, error) {
	switch t.APIVersion + " " + t.Kind {
	case "traefik.io/v1alpha1 Middleware":
		return new(traefikMiddleware), nil
	case "traefik.io/v1alpha1 IngressRoute":
		return new(traefikIngressRoute), nil
	case "gateway.envoyproxy.io/v1alpha1 SecurityPolicy":
		return new(envoySecurityPolicy), nil
	}
	return types.New(t.GroupVersionKind())
}

// decode reads manifests as the API server does when it is asked to be strict: with unknown fields, fields in another case, and
// fields that are there twice as errors.
func decode(manifests string) (objects []any, err error) {
	for _, text := range strings.Split("\n"+manifests, "\n---") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		raw, err := yaml.YAMLToJSONStrict([]byte(text))
		if err != nil {
			return nil, err
		}
		if string(raw) == "null" { // comments alone
			continue
		}
		var meta metav1.TypeMeta
		if err := json.UnmarshalCaseSensitivePreserveInts(raw, &meta); err != nil {
			return nil, err
		}
		o, err := object(meta)
		if err != nil {
			return nil, err
		}
		strict, err := json.UnmarshalStrict(raw, o)
		if err := errors.Join(append(strict, err)...); err != nil {
			return nil, fmt.Errorf("%s: %w", meta.Kind, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func TestMistakesInManifestsAreNoticed(t *testing.T) {
	const good = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  selector: {a: b}\n"
	if _, err := decode(good); err != nil {
		t.Errorf("decode(%q) = %v", good, err)
	}
	for name, test := range map[string]struct{ text, want string }{
		"an unknown field":      {good + "  seletor: {}\n", `unknown field "spec.seletor"`},
		"another case":          {good + "  Selector: {}\n", `unknown field "spec.Selector"`},
		"a field twice":         {good + "  selector: {c: d}\n", "already set"},
		"another type":          {good + "  ports: {}\n", "cannot unmarshal"},
		"an unknown kind":       {"apiVersion: v1\nkind: Servce\n", `no kind "Servce"`},
		"a mistake of CRDs":     {"apiVersion: traefik.io/v1alpha1\nkind: Middleware\nspec: {forwardAuth: {adress: x}}\n", `unknown field "spec.forwardAuth.adress"`},
		"in the second of them": {good + "---\n" + good + "  seletor: {}\n", "seletor"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := decode(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("decode = %v, want %s", err, test.want)
			}
		})
	}
}

// A deployment is what a set of manifests comes to.
type deployment struct {
	pods     map[string]*corev1.PodTemplateSpec // by Kind/name
	services map[string]*corev1.Service
	config   string // of authproxy
	delays   int64  // seconds that authproxy may take to stop
	objects  []any
}

// all are the objects of one type.
func all[T any](objects []any) (found []*T) {
	for _, o := range objects {
		if o, ok := o.(*T); ok {
			found = append(found, o)
		}
	}
	return found
}

// checkDeployment checks what no decoder sees: that the objects fit each other, and are as safe as we say.
func checkDeployment(t *testing.T, objects []any) *deployment {
	t.Helper()
	d := &deployment{pods: map[string]*corev1.PodTemplateSpec{}, services: map[string]*corev1.Service{}, objects: objects}
	if found := all[corev1.Secret](objects); len(found) > 0 {
		t.Errorf("%d Secrets are among the manifests, want none: they would be in the repository", len(found))
	}
	var secrets []string
	for _, c := range all[corev1.ConfigMap](objects) {
		d.config = c.Data["config.yaml"]
		secrets = append(secrets, checkConfig(t, d.config)...)
	}
	for _, s := range secrets {
		if known := []string{"authproxy/admin-token", "authproxy/client-secret", "authproxy/front-proxy-secret", "authproxy/redis-password", "authproxy/session-key"}; !slices.Contains(known, s) {
			t.Errorf("the configuration reads /run/secrets/%s, which the pages do not make", s)
		}
	}
	if d.config == "" || !slices.Contains(secrets, "authproxy/session-key") {
		t.Errorf("there is no configuration with a session key from a Secret:\n%s", d.config)
	}
	if strings.Contains(d.config, "shutdown: {delay: 5s}") {
		d.delays = 35
	} else {
		t.Error("the configuration does not wait for Services to turn away")
	}
	for _, w := range all[appsv1.Deployment](objects) {
		d.addPods(t, "Deployment/"+w.Name, w.Spec.Selector, &w.Spec.Template)
	}
	for _, w := range all[appsv1.StatefulSet](objects) {
		d.addPods(t, "StatefulSet/"+w.Name, w.Spec.Selector, &w.Spec.Template)
	}
	for _, s := range all[corev1.Service](objects) {
		d.services[s.Name] = s
		pods := d.selected(t, "Service/"+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		for _, p := range s.Spec.Ports {
			if !hasPort(pods, p.TargetPort) {
				t.Errorf("Service/%s: no container has the port %s", s.Name, p.TargetPort.String())
			}
		}
	}
	for _, p := range all[policyv1.PodDisruptionBudget](objects) {
		d.selected(t, "PodDisruptionBudget/"+p.Name, p.Spec.Selector)
	}
	for _, h := range all[autoscalingv2.HorizontalPodAutoscaler](objects) {
		ref := h.Spec.ScaleTargetRef
		if d.pods[ref.Kind+"/"+ref.Name] == nil {
			t.Errorf("HorizontalPodAutoscaler/%s: there is no %s/%s", h.Name, ref.Kind, ref.Name)
		}
		for _, w := range all[appsv1.Deployment](objects) {
			if w.Name == ref.Name && w.Spec.Replicas != nil {
				t.Errorf("Deployment/%s has replicas, which HorizontalPodAutoscaler/%s decides about", w.Name, h.Name)
			}
		}
		if *h.Spec.MinReplicas < 2 {
			t.Errorf("HorizontalPodAutoscaler/%s: minReplicas = %d, want 2 at least", h.Name, *h.Spec.MinReplicas)
		}
		if !strings.Contains(d.config, "store: redis") {
			t.Errorf("HorizontalPodAutoscaler/%s: there are several replicas without sessions in Redis", h.Name)
		}
	}
	d.checkNetwork(t)
	d.checkAuthproxy(t)
	return d
}

func (d *deployment) addPods(t *testing.T, name string, selector *metav1.LabelSelector, template *corev1.PodTemplateSpec) {
	t.Helper()
	d.pods[name] = template
	if !selects(t, selector, template.Labels) {
		t.Errorf("%s does not select its own pods", name)
	}
	spec := template.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s: the pods get a token of the API server", name)
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		t.Errorf("%s: the pods share namespaces of the host", name)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: container %s has privileges", name, c.Name)
			continue
		}
		if c.Name == "app" { // somebody else's
			continue
		}
		pod := spec.SecurityContext
		if !isTrue(s.ReadOnlyRootFilesystem) {
			t.Errorf("%s: container %s can write to its file system", name, c.Name)
		}
		if !isTrue(s.RunAsNonRoot) && (pod == nil || !isTrue(pod.RunAsNonRoot)) {
			t.Errorf("%s: container %s may run as root", name, c.Name)
		}
		seccomp := s.SeccompProfile
		if seccomp == nil && pod != nil {
			seccomp = pod.SeccompProfile
		}
		if seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: container %s may call everything of the kernel", name, c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
			t.Errorf("%s: container %s has no limit of memory, or asks for nothing", name, c.Name)
		}
		if strings.HasSuffix(c.Image, ":latest") || !strings.Contains(c.Image, ":") && !strings.Contains(c.Image, "@") && c.Image != "authproxy" {
			t.Errorf("%s: container %s has the image %s, want one with a version", name, c.Name, c.Image)
		}
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" {
				t.Errorf("%s: %s is mounted with subPath: it would never change", name, m.Name)
			}
		}
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func selects(t *testing.T, selector *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return !s.Empty() && s.Matches(labels.Set(of))
}

// selected are the pods that somebody's selector finds.
func (d *deployment) selected(t *testing.T, who string, selector *metav1.LabelSelector) (found []*corev1.PodTemplateSpec) {
	t.Helper()
	for _, p := range d.pods {
		if selects(t, selector, p.Labels) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Errorf("%s selects %d kinds of pods, want one", who, len(found))
	}
	return found
}

func hasPort(pods []*corev1.PodTemplateSpec, port intstr.IntOrString) bool {
	for _, p := range pods {
		for _, c := range p.Spec.Containers {
			for _, have := range c.Ports {
				if port.Type == intstr.String && have.Name == port.StrVal || port.Type == intstr.Int && have.ContainerPort == port.IntVal {
					return true
				}
			}
		}
	}
	return false
}

// checkNetwork checks that every pod of ours is behind a NetworkPolicy, and that what leads to us finds us.
func (d *deployment) checkNetwork(t *testing.T) {
	t.Helper()
	policies := all[networkingv1.NetworkPolicy](d.objects)
	for name, p := range d.pods {
		n := 0
		for _, policy := range policies {
			if !selects(t, &policy.Spec.PodSelector, p.Labels) {
				continue
			}
			n++
			if !slices.Contains(policy.Spec.PolicyTypes, "Ingress") || !slices.Contains(policy.Spec.PolicyTypes, "Egress") {
				t.Errorf("NetworkPolicy/%s leaves a direction open", policy.Name)
			}
			for _, rule := range policy.Spec.Ingress {
				for _, port := range rule.Ports {
					if !hasPort([]*corev1.PodTemplateSpec{p}, *port.Port) {
						t.Errorf("NetworkPolicy/%s: %s has no port %s", policy.Name, name, port.Port)
					}
				}
				if len(rule.From) == 0 || len(rule.Ports) == 0 {
					t.Errorf("NetworkPolicy/%s lets everybody in, or to every port", policy.Name)
				}
			}
		}
		if n != 1 {
			t.Errorf("%s has %d NetworkPolicies, want one", name, n)
		}
	}
	for _, i := range all[networkingv1.Ingress](d.objects) {
		for _, rule := range i.Spec.Rules {
			for _, p := range rule.HTTP.Paths {
				s := p.Backend.Service
				if s.Name != "app" && !d.hasService(s.Name, s.Port.Name) {
					t.Errorf("Ingress/%s: there is no Service %s with a port %s", i.Name, s.Name, s.Port.Name)
				}
			}
			if !strings.Contains(d.config, "https://"+rule.Host+"\n") {
				t.Errorf("Ingress/%s: %s is not the host of public_url", i.Name, rule.Host)
			}
		}
	}
	for _, m := range all[monitoringv1.ServiceMonitor](d.objects) {
		found := 0
		for _, s := range d.services {
			if selects(t, &m.Spec.Selector, s.Labels) && d.hasService(s.Name, m.Spec.Endpoints[0].Port) {
				found++
				if got := s.Labels[m.Spec.JobLabel]; got != "authproxy" {
					t.Errorf("ServiceMonitor/%s: the job is called %q, want authproxy, as in the alert rules", m.Name, got)
				}
			}
		}
		if found != 1 || m.Spec.Endpoints[0].Path != "/metrics" {
			t.Errorf("ServiceMonitor/%s finds %d Services and reads %s, want one and /metrics", m.Name, found, m.Spec.Endpoints[0].Path)
		}
	}
}

func (d *deployment) hasService(name, port string) bool {
	s := d.services[name]
	return s != nil && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == port })
}

// checkAuthproxy checks the container of authproxy.
func (d *deployment) checkAuthproxy(t *testing.T) {
	t.Helper()
	found := 0
	for name, p := range d.pods {
		i := slices.IndexFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == "authproxy" })
		if i < 0 {
			continue
		}
		found++
		c := p.Spec.Containers[i]
		ports := map[string]int32{}
		for _, port := range c.Ports {
			ports[port.Name] = port.ContainerPort
		}
		if ports["http"] != 8080 || ports["admin"] != 9090 || len(ports) != 2 {
			t.Errorf("%s: ports = %v, want http 8080 and admin 9090", name, ports)
		}
		for what, probe := range map[string]*corev1.Probe{"/readyz": c.ReadinessProbe, "/readyz at the start": c.StartupProbe, "/healthz": c.LivenessProbe} {
			path, _, _ := strings.Cut(what, " ")
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "admin" {
				t.Errorf("%s: the probe for %s is %v, want %s on the port admin", name, what, probe, path)
			}
		}
		if got := *c.SecurityContext.RunAsUser; got != 65532 {
			t.Errorf("%s: user = %d, want that of the image, 65532", name, got)
		}
		mounts := map[string]string{}
		for _, m := range c.VolumeMounts {
			mounts[m.MountPath] = m.Name
			if !m.ReadOnly {
				t.Errorf("%s: %s is not read-only", name, m.MountPath)
			}
		}
		config, secrets := mounts["/etc/authproxy"], mounts["/run/secrets/authproxy"]
		for _, v := range p.Spec.Volumes {
			switch v.Name {
			case config:
				if v.ConfigMap == nil || !slices.ContainsFunc(all[corev1.ConfigMap](d.objects), func(c *corev1.ConfigMap) bool { return c.Name == v.ConfigMap.Name }) {
					t.Errorf("%s: there is no ConfigMap for /etc/authproxy", name)
				}
				config = ""
			case secrets:
				if v.Secret == nil || v.Secret.SecretName != "authproxy" {
					t.Errorf("%s: the secrets are not of the Secret authproxy", name)
				}
				secrets = ""
			}
		}
		if config != "" || secrets != "" || len(mounts) != 2 {
			t.Errorf("%s: mounts = %v, want /etc/authproxy and /run/secrets/authproxy", name, mounts)
		}
		if got := p.Spec.TerminationGracePeriodSeconds; got == nil || *got <= d.delays {
			t.Errorf("%s: terminationGracePeriodSeconds = %v, want more than the %d that authproxy may take", name, got, d.delays)
		}
		for _, other := range p.Spec.Containers {
			for _, m := range other.VolumeMounts {
				if other.Name != "authproxy" && m.Name == mounts["/run/secrets/authproxy"] {
					t.Errorf("%s: container %s sees the secrets", name, other.Name)
				}
			}
		}
	}
	if found != 1 {
		t.Errorf("%d kinds of pods have a container authproxy, want one", found)
	}
}
