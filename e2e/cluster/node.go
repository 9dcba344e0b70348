package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// maxNodes is how many /24 of pods fit in podRange, the host's 0 left out.
const maxNodes = 63

// node is one machine of the cluster: a network namespace, a cgroup and a folder.
type node struct {
	number int
	dir    string
}

func (s *state) node(number int) node {
	return node{number: number, dir: s.path("nodes", "node-"+strconv.Itoa(number))}
}

func (s *state) nodesUpTo(count int) []node {
	nodes := make([]node, count)
	for i := range nodes {
		nodes[i] = s.node(i + 1)
	}
	return nodes
}

// nodes lists the nodes that were ever started in this cluster.
func (s *state) nodes() ([]node, error) {
	entries, err := os.ReadDir(s.path("nodes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	count := 0
	for _, entry := range entries {
		if number, err := parseNodeName(entry.Name()); err == nil {
			count = max(count, number)
		}
	}
	return s.nodesUpTo(count), nil
}

func parseNodeName(name string) (int, error) {
	digits, found := strings.CutPrefix(name, "node-")
	if !found {
		return 0, fmt.Errorf("%q is not a node's name", name)
	}
	number, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a node's name: %w", name, err)
	}
	if number < 1 || number > maxNodes {
		return 0, fmt.Errorf("%q is not between node-1 and node-%d", name, maxNodes)
	}
	return number, nil
}

func (n node) name() string              { return "node-" + strconv.Itoa(n.number) }
func (n node) address() string           { return "198.18.255." + strconv.Itoa(10+n.number) }
func (n node) podCIDR() string           { return fmt.Sprintf("198.18.%d.0/24", n.number) }
func (n node) cable() string             { return "hf" + strconv.Itoa(n.number) + "-eth0" }
func (n node) netnsName() string         { return "hf-" + n.name() }
func (n node) netns() string             { return "/run/netns/" + n.netnsName() }
func (n node) group() string             { return rootGroup + "/" + n.name() }
func (n node) systemGroup() string       { return n.group() + "/system" } // daemons and shims
func (n node) socket() string            { return n.path("containerd.sock") }
func (n node) daemon(kind string) string { return n.name() + "." + kind }
func (n node) kubeletHealth() string     { return "http://" + n.address() + ":10248/healthz" }

func (n node) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

var nodeDaemons = []string{"kubelet", "proxy", "containerd"}

// startRuntime brings a node to the point where it can run containers.
func (s *state) startRuntime(ctx context.Context, groups cgroups, n node) error {
	sound, err := s.sound(groups, n)
	if err != nil {
		return err
	}
	if !sound {
		if err := s.removeNode(ctx, groups, n); err != nil {
			return err
		}
	}
	if err := groups.create(n.systemGroup()); err != nil {
		return err
	}
	if err := n.ensureNetwork(ctx); err != nil {
		return err
	}
	if err := n.ensureDisk(ctx); err != nil {
		return err
	}
	files, err := n.writeRuntimeConfig()
	if err != nil {
		return err
	}
	err = s.ensure(ctx, groups, daemon{
		name:   n.daemon("containerd"),
		argv:   []string{"containerd", "--config", files[0]},
		inside: n.inside(),
		group:  n.systemGroup(),
		files:  files,
		probe: func(ctx context.Context) error {
			_, err := runFor(ctx, 3*time.Second, "ctr", "-a", n.socket(), "version")
			return err
		},
	})
	if err != nil {
		return err
	}
	return s.importStored(ctx, n)
}

// sound tells whether what is left of a node can be kept. Daemons that are gone
// are started again in place. But a namespace or a cgroup that is gone took the
// ground from under the node's pods, and a daemon whose record is lost cannot be
// told from the shims beside it: then the node is made anew.
func (s *state) sound(groups cgroups, n node) (bool, error) {
	if !isNamespace(n.netns()) || !isNamespace(n.mountns()) || !groups.whole(n.systemGroup()) {
		return false, nil
	}
	pids, err := groups.processes(n.systemGroup())
	if err != nil {
		return false, err
	}
	for _, kind := range nodeDaemons {
		r, running, err := s.find(n.daemon(kind))
		if err != nil {
			return false, err
		}
		if r.PID == 0 && len(pids) > 0 || running && n.elsewhere(r.PID) {
			return false, nil
		}
	}
	return true, nil
}

func (s *state) startKubelet(ctx context.Context, groups cgroups, kube string, a *authority, n node) error {
	config, err := n.writeKubeletConfig(a)
	if err != nil {
		return err
	}
	credentials := s.kubeconfigOf(n.name())
	return s.ensure(ctx, groups, daemon{
		name: n.daemon("kubelet"),
		argv: []string{kube, "kubelet",
			"--config=" + config,
			"--kubeconfig=" + credentials,
			"--hostname-override=" + n.name(),
			"--node-ip=" + n.address(),
			"--root-dir=" + n.path("kubelet"),
			"--cert-dir=" + n.path("kubelet-pki"),
		},
		inside: n.inside(),
		group:  n.systemGroup(),
		files:  []string{config, credentials},
		probe:  answers(n.kubeletHealth()),
	})
}

func (s *state) startProxy(ctx context.Context, groups cgroups, kube string, n node) error {
	credentials := s.kubeconfigOf("proxy")
	config, err := n.writeProxyConfig(credentials)
	if err != nil {
		return err
	}
	return s.ensure(ctx, groups, daemon{
		name:   n.daemon("proxy"),
		argv:   []string{kube, "proxy", "--config=" + config},
		inside: n.inside(),
		group:  n.systemGroup(),
		files:  []string{config, credentials},
		probe:  answers("http://" + n.address() + ":10256/livez"),
	})
}

// startAgents starts the two daemons of a node that speak to the API server.
func (s *state) startAgents(ctx context.Context, groups cgroups, kube string, a *authority, n node) error {
	return parallel(
		func() error { return s.startKubelet(ctx, groups, kube, a, n) },
		func() error { return s.startProxy(ctx, groups, kube, n) },
	)
}

// waitReady waits until the API server calls the node ready because this very
// kubelet said so: what it heard from one that died before does not count.
func (s *state) waitReady(ctx context.Context, api *client, n node) error {
	kubelet, _, err := s.find(n.daemon("kubelet"))
	if err != nil {
		return err
	}
	// Heartbeats come in whole seconds.
	since := kubelet.Started.Truncate(time.Second)
	return waitFor(ctx, startLimit, n.name()+" to be Ready", func(ctx context.Context) error {
		ready, err := readiness(ctx, api, n)
		if err != nil {
			return err
		}
		if !ready.ready {
			return errors.New(ready.message)
		}
		if !ready.heartbeat.Before(since) {
			return nil
		}
		// After a restart that changed nothing the kubelet renews its lease only.
		renewed, err := leaseRenewed(ctx, api, n)
		if err == nil && renewed.Before(since) {
			err = errors.New("its kubelet has not been heard since it was started")
		}
		return err
	})
}

// nodeReadiness is what the API server knows of a node.
type nodeReadiness struct {
	ready     bool
	message   string
	heartbeat time.Time
}

func readiness(ctx context.Context, api *client, n node) (nodeReadiness, error) {
	var answer struct {
		Status struct {
			Conditions []struct {
				Type              string    `json:"type"`
				Status            string    `json:"status"`
				Message           string    `json:"message"`
				LastHeartbeatTime time.Time `json:"lastHeartbeatTime"`
			} `json:"conditions"`
		} `json:"status"`
	}
	if err := api.get(ctx, "/api/v1/nodes/"+n.name(), &answer); err != nil {
		return nodeReadiness{}, err
	}
	for _, c := range answer.Status.Conditions {
		if c.Type == "Ready" {
			return nodeReadiness{c.Status == "True", c.Message, c.LastHeartbeatTime}, nil
		}
	}
	return nodeReadiness{message: "its kubelet has not reported yet"}, nil
}

func leaseRenewed(ctx context.Context, api *client, n node) (time.Time, error) {
	var lease struct {
		Spec struct {
			RenewTime time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	err := api.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+n.name(), &lease)
	return lease.Spec.RenewTime, err
}

// removeNode stops a node and removes every trace of it, in an order that never
// deletes through a mount: processes, mounts, network, cgroups, files.
func (s *state) removeNode(ctx context.Context, groups cgroups, n node) error {
	for _, kind := range nodeDaemons {
		if err := s.stop(ctx, n.daemon(kind)); err != nil {
			return err
		}
	}
	if err := groups.killAll(ctx, n.group()); err != nil {
		return err
	}
	if err := removeShimSockets(n); err != nil {
		return err
	}
	if err := unmountBelow(n.dir); err != nil {
		return err
	}
	if err := errors.Join(n.removeDisk(), n.removeNetwork(ctx), groups.remove(ctx, n.group())); err != nil {
		return err
	}
	if err := os.RemoveAll(n.dir); err != nil {
		return fmt.Errorf("remove the folder of %s: %w", n.name(), err)
	}
	return nil
}
