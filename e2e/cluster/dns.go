package main

import (
	"context"
	"fmt"
	"net"
	"slices"
)

const (
	domain   = "cluster.local"
	dnsUser  = "system:coredns"
	rbacPath = "/apis/rbac.authorization.k8s.io/v1"
)

// corefile answers for the cluster and for nothing else: a name outside does not
// exist, at once, as there is no way to the outside either.
const corefile = `%[1]s:53 in-addr.arpa:53 {
	bind %[2]s
	errors
	ready %[2]s:8181
	kubernetes %[1]s in-addr.arpa {
		kubeconfig %[3]s
		ttl 5
	}
	cache 5
}
.:53 {
	bind %[2]s
	errors
	template ANY ANY . {
		rcode NXDOMAIN
	}
}
`

// startDNS runs CoreDNS on the host: in a pod, one node's death would take the
// names of everything along.
func (s *state) startDNS(ctx context.Context, groups cgroups, kube string) error {
	api, err := s.newClient()
	if err != nil {
		return err
	}
	if err := allowDNS(ctx, api); err != nil {
		return err
	}
	path := s.path("dns", "Corefile")
	config := s.kubeconfigOf("dns")
	if err := writeFile(path, fmt.Appendf(nil, corefile, domain, hostAddress, config), 0o644); err != nil {
		return err
	}
	return s.ensure(ctx, groups, daemon{
		name:  "dns",
		argv:  []string{kube, "dns", "-conf=" + path},
		group: controlGroup,
		files: []string{path, config},
		probe: probeDNS,
	})
}

// probeDNS resolves the one Service every cluster has.
func probeDNS(ctx context.Context) error {
	var dialer net.Dialer
	resolver := net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, net.JoinHostPort(hostAddress, "53"))
		},
	}
	found, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+domain+".")
	if err != nil {
		return fmt.Errorf("resolve the API server's Service: %w", err)
	}
	if !slices.Contains(found, apiService) {
		return fmt.Errorf("resolve the API server's Service: got %v, not %s", found, apiService)
	}
	return nil
}

type object map[string]any

// allowDNS lets CoreDNS watch what it has names for.
func allowDNS(ctx context.Context, api *client) error {
	role := object{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
		"metadata": object{"name": dnsUser},
		"rules": []object{
			{"apiGroups": []string{""}, "resources": []string{"services", "pods", "namespaces"}, "verbs": []string{"list", "watch"}},
			{"apiGroups": []string{"discovery.k8s.io"}, "resources": []string{"endpointslices"}, "verbs": []string{"list", "watch"}},
		},
	}
	binding := object{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
		"metadata": object{"name": dnsUser},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": dnsUser},
		"subjects": []object{{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": dnsUser}},
	}
	if err := api.apply(ctx, rbacPath+"/clusterroles/"+dnsUser, role); err != nil {
		return err
	}
	return api.apply(ctx, rbacPath+"/clusterrolebindings/"+dnsUser, binding)
}
