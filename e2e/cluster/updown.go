package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// defaultNodes is how many nodes a new cluster has.
const defaultNodes = 2

func upCommand(ctx context.Context, args []string) error {
	set := flagsOf("up")
	count := set.Int("nodes", defaultNodes, "number of nodes; a running cluster may get more but never fewer")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	if *count < 1 || *count > maxNodes {
		return fmt.Errorf("--nodes must be between 1 and %d, not %d", maxNodes, *count)
	}
	s, unlock, err := openState(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	return s.up(ctx, *count)
}

// up repairs what is there. If that fails it starts over, once: a state nobody
// thought of must not need a hand.
func (s *state) up(ctx context.Context, count int) error {
	if err := s.installPackages(ctx); err != nil {
		return err
	}
	kube, err := s.build(ctx)
	if err != nil {
		return err
	}
	alive, err := s.alive()
	if err != nil {
		return err
	}
	// Made now, they would hide what the pods of that cluster have mounted.
	mounted, err := s.hasHostMounts()
	if err != nil {
		return err
	}
	if alive && mounted {
		err := s.bringUp(ctx, kube, count)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.say("cannot repair the cluster, starting over: %v", err)
	}
	if err := s.tearDown(ctx); err != nil {
		return err
	}
	if err := s.setLogsAside(); err != nil {
		return err
	}
	if err := s.markAlive(); err != nil {
		return err
	}
	return s.bringUp(ctx, kube, count)
}

// setLogsAside keeps the logs of one earlier cluster, which may tell why it had
// to go.
func (s *state) setLogsAside() error {
	previous := s.path("log.previous")
	if err := os.RemoveAll(previous); err != nil {
		return fmt.Errorf("remove old logs: %w", err)
	}
	if err := os.Rename(s.path("log"), previous); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the logs aside: %w", err)
	}
	return nil
}

// bringUp starts whatever does not run, leaves alone what does, and returns when
// pods can run on every node.
func (s *state) bringUp(ctx context.Context, kube string, count int) error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	existing, err := s.nodes()
	if err != nil {
		return err
	}
	if len(existing) > count {
		count = len(existing)
	}
	nodes := s.nodesUpTo(count)
	if err := s.makePauseImage(ctx); err != nil {
		return err
	}
	if err := errors.Join(ensureHostNetwork(ctx), s.ensureHostMounts(ctx)); err != nil {
		return err
	}
	a, err := s.ensurePKI(nodes)
	if err != nil {
		return err
	}
	if err := s.writeKubeconfigs(a, nodes); err != nil {
		return err
	}
	if err := s.startEverything(ctx, groups, kube, a, nodes); err != nil {
		return err
	}
	return s.waitUsable(ctx, nodes)
}

func (s *state) startEverything(ctx context.Context, groups cgroups, kube string, a *authority, nodes []node) error {
	first := []func() error{func() error { return s.startControlPlane(ctx, groups, kube, a) }}
	for _, n := range nodes {
		first = append(first, func() error { return s.startRuntime(ctx, groups, n) })
	}
	if err := parallel(first...); err != nil {
		return err
	}
	if err := connect(ctx, nodes); err != nil {
		return err
	}
	second := []func() error{func() error { return s.startFollowers(ctx, groups, kube, a) }}
	for _, n := range nodes {
		second = append(second, func() error { return s.startAgents(ctx, groups, kube, a, n) })
	}
	return parallel(second...)
}

func (s *state) waitUsable(ctx context.Context, nodes []node) error {
	api, err := s.newClient()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := s.waitReady(ctx, api, n); err != nil {
			return err
		}
	}
	// A pod made before this account is refused.
	err = waitFor(ctx, startLimit, "the default service account", func(ctx context.Context) error {
		return api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
	if err != nil {
		return err
	}
	s.say("ready: %d nodes", len(nodes))
	fmt.Printf("\nexport KUBECONFIG=%s PATH=%s:$PATH   # kubectl and helm\n", s.kubeconfig(), s.path("bin"))
	return nil
}

func downCommand(ctx context.Context, args []string) error {
	set := flagsOf("down")
	purge := set.Bool("purge", false, "remove the state folder too, with the compiled binary and the logs")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	s, unlock, err := openState(ctx, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.tearDown(ctx); err != nil {
		return err
	}
	if *purge {
		if err := os.RemoveAll(s.dir); err != nil {
			return fmt.Errorf("remove the state folder: %w", err)
		}
	}
	s.say("down")
	return nil
}

// tearDown removes everything up made except the binary and the logs. It relies
// on no record being there.
func (s *state) tearDown(ctx context.Context) error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	nodes, err := s.everyNode(groups)
	if err != nil {
		return err
	}
	var removals []func() error
	for _, n := range nodes {
		removals = append(removals, func() error { return s.removeNode(ctx, groups, n) })
	}
	removals = append(removals, func() error { return s.removeControlPlane(ctx) })
	if err := parallel(removals...); err != nil {
		return err
	}
	// Whatever was started by an invocation that died before it wrote it down.
	if err := groups.killAll(ctx, rootGroup); err != nil {
		return err
	}
	return errors.Join(
		groups.remove(ctx, rootGroup),
		removeHostNetwork(ctx),
		s.removeHostMounts(),
		s.removeLogLinks(),
		os.RemoveAll(s.path("nodes")),
		os.RemoveAll(s.path("run")),
		os.RemoveAll(s.path("images")),
		os.RemoveAll(s.birthPath()),
	)
}

// everyNode lists the nodes of which anything is left: a folder, a namespace or
// a cgroup.
func (s *state) everyNode(groups cgroups) ([]node, error) {
	found, err := s.nodes()
	if err != nil {
		return nil, err
	}
	count := len(found)
	for _, pattern := range []string{"/run/netns/hf-node-*", filepath.Join(mountnsFolder, "node-*"), filepath.Join(groups.freezer, rootGroup, "node-*")} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("look for nodes: %w", err)
		}
		for _, path := range paths {
			name := strings.TrimPrefix(filepath.Base(path), "hf-")
			if number, err := parseNodeName(name); err == nil {
				count = max(count, number)
			}
		}
	}
	return s.nodesUpTo(count), nil
}
