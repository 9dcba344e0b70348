package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// nodeFault is harm done to a whole node, or the end of it. It returns what
// happened, in a few words.
type nodeFault func(s *state, ctx context.Context, groups cgroups, n node) (string, error)

func nodeFaultCommand(kind string, do nodeFault) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		set := flagsOf("fault " + kind)
		if err := parse(set, args, 1, 1); err != nil {
			return err
		}
		number, err := parseNodeName(set.Arg(0))
		if err != nil {
			return err
		}
		s, unlock, err := openState(ctx, syscall.LOCK_EX)
		if err != nil {
			return err
		}
		defer unlock()
		nodes, err := s.nodes()
		if err != nil {
			return err
		}
		if number > len(nodes) {
			return fmt.Errorf("the cluster has no %s, only %d nodes", set.Arg(0), len(nodes))
		}
		groups, err := findCgroups()
		if err != nil {
			return err
		}
		n := s.node(number)
		done, err := do(s, ctx, groups, n)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, n.name(), err)
		}
		fmt.Printf("%s %s: %s\n", kind, n.name(), done)
		return nil
	}
}

// stopNode is a power failure. The cable goes before the processes do: the
// kernel would otherwise say goodbye on every connection they had, and whoever
// listened would know at once what a dead machine tells nobody.
func (s *state) stopNode(ctx context.Context, groups cgroups, n node) (string, error) {
	if err := n.expectStopped(groups, false); err != nil {
		return "", err
	}
	pids, err := freezeGroup(ctx, groups, n.group())
	if err != nil {
		return "", err
	}
	if err := n.cut(ctx); err != nil {
		return "", errors.Join(err, groups.freeze(context.WithoutCancel(ctx), n.group(), false))
	}
	if err := killFrozen(ctx, groups, n.group(), pids); err != nil {
		return "", err
	}
	// Signals take effect when the kernel gets to it.
	return listed(pids), groups.killAll(ctx, n.group())
}

// startNode does what up does for a node whose machine was restarted: the
// kubelet finds the remains of its pods and starts them again.
func (s *state) startNode(ctx context.Context, groups cgroups, n node) (string, error) {
	if err := n.expectStopped(groups, true); err != nil {
		return "", err
	}
	if err := answers(apiURL + "/readyz")(ctx); err != nil {
		return "", fmt.Errorf("the API server cannot say when it is Ready: %w", err)
	}
	kube, a, err := s.madeByUp()
	if err != nil {
		return "", err
	}
	nodes, err := s.nodes()
	if err != nil {
		return "", err
	}
	if err := s.startRuntime(ctx, groups, n); err != nil {
		return "", err
	}
	if err := connect(ctx, nodes); err != nil {
		return "", err
	}
	if err := s.startAgents(ctx, groups, kube, a, n); err != nil {
		return "", err
	}
	api, err := s.newClient()
	if err != nil {
		return "", err
	}
	return isReady, s.waitReady(ctx, api, n)
}

// cutLink pulls the cable out at the bridge's end: the node keeps its addresses
// and routes, sends what it likes, and is not heard.
func (s *state) cutLink(ctx context.Context, _ cgroups, n node) (string, error) {
	if err := n.expectCut(false); err != nil {
		return "", err
	}
	if err := n.cut(ctx); err != nil {
		return "", err
	}
	return n.cable() + " is down", nil
}

// healLink returns when the kubelet can be reached. When the API server hears
// of the node again is up to the kubelet.
func (s *state) healLink(ctx context.Context, groups cgroups, n node) (string, error) {
	// A stopped node's cable is mended by start-node.
	if err := n.expectStopped(groups, false); err != nil {
		return "", err
	}
	if err := n.expectCut(true); err != nil {
		return "", err
	}
	nodes, err := s.nodes()
	if err != nil {
		return "", err
	}
	if err := n.ensureNetwork(ctx); err != nil {
		return "", err
	}
	if err := connect(ctx, nodes); err != nil {
		return "", err
	}
	err = waitFor(ctx, startLimit, "its kubelet to be reached", answers(n.kubeletHealth()))
	return n.cable() + " is up", err
}

// stopped tells whether nothing at all runs on the node.
func (n node) stopped(groups cgroups) (bool, error) {
	pids, err := groups.processes(n.group())
	return len(pids) == 0, err
}

func (n node) expectStopped(groups cgroups, want bool) error {
	stopped, err := n.stopped(groups)
	switch {
	case err != nil:
		return err
	case stopped && !want:
		return errors.New("it is stopped, none of its processes runs")
	case !stopped && want:
		return errors.New("it is not stopped")
	}
	return nil
}

// cut takes the bridge's end of the node's cable down, and makes sure.
func (n node) cut(ctx context.Context) error {
	if _, err := run(ctx, "ip", "link", "set", n.cable(), "down"); err != nil {
		return err
	}
	return n.expectCut(true)
}

func (n node) expectCut(want bool) error {
	cut, err := n.linkCut()
	switch {
	case err != nil:
		return err
	case cut && !want:
		return fmt.Errorf("its cable %s is down", n.cable())
	case !cut && want:
		return fmt.Errorf("its cable %s is up", n.cable())
	}
	return nil
}

// linkCut tells whether the node's cable is down at the bridge's end, or gone.
func (n node) linkCut() (bool, error) {
	content, err := os.ReadFile("/sys/class/net/" + n.cable() + "/flags")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the cable %s: %w", n.cable(), err)
	}
	flags, err := strconv.ParseUint(strings.TrimSpace(string(content)), 0, 32)
	if err != nil {
		return false, fmt.Errorf("read the flags of %s: %w", n.cable(), err)
	}
	return flags&syscall.IFF_UP == 0, nil
}
