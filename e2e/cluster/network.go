package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Everything lies in 198.18.0.0/15, which is reserved for benchmarks, so that
// nothing here looks like traffic to somebody's private network.
const (
	wholeRange   = "198.18.0.0/15"
	podRange     = "198.18.0.0/18"
	serviceRange = "198.19.0.0/16"
	apiService   = "198.19.0.1" // the first address of serviceRange
	bridge       = "hf0"
	hostAddress  = "198.18.255.1"
	firewall     = "HYPERFLOW" // our chain of the host's packet filter
)

// rules keep the cluster's packets on the machine even if somebody turns on
// forwarding: nodes reach each other and the host, and nothing else.
var rules = [][]string{
	{"-i", bridge, "-o", bridge, "-j", "ACCEPT"},
	{"-i", bridge, "-j", "DROP"},
	{"-o", bridge, "-j", "DROP"},
}

// inotifyInstances is enough for several kubelets; the kernel's 128 are not.
const inotifyInstances = "1024"

// ensureHostNetwork makes the bridge, the way out that leads nowhere, and the
// packet filter, as far as they are not there.
func ensureHostNetwork(ctx context.Context) error {
	if err := raiseInotify(); err != nil {
		return err
	}
	if err := ensureBridge(ctx); err != nil {
		return err
	}
	if _, err := run(ctx, "iptables", "-w", "-n", "-L", firewall); err != nil {
		if _, err := run(ctx, "iptables", "-w", "-N", firewall); err != nil {
			return err
		}
	}
	for _, rule := range rules {
		if err := ensureRule(ctx, "-A", firewall, rule); err != nil {
			return err
		}
	}
	return ensureRule(ctx, "-I", "FORWARD", []string{"-j", firewall})
}

func ensureBridge(ctx context.Context) error {
	exists, err := linkExists(bridge)
	if err != nil {
		return err
	}
	if !exists {
		if _, err := run(ctx, "ip", "link", "add", bridge, "type", "bridge"); err != nil {
			return err
		}
	}
	for _, step := range [][]string{
		{"addr", "replace", hostAddress + "/24", "dev", bridge},
		{"link", "set", bridge, "up"},
		// Whatever has no closer route goes nowhere.
		{"route", "replace", "blackhole", wholeRange},
	} {
		if _, err := run(ctx, "ip", step...); err != nil {
			return err
		}
	}
	return nil
}

func linkExists(name string) (bool, error) {
	_, err := os.Stat("/sys/class/net/" + name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for the link %s: %w", name, err)
	}
	return err == nil, nil
}

func ensureRule(ctx context.Context, how, chain string, rule []string) error {
	if _, err := run(ctx, "iptables", append([]string{"-w", "-C", chain}, rule...)...); err == nil {
		return nil
	}
	_, err := run(ctx, "iptables", append([]string{"-w", how, chain}, rule...)...)
	return err
}

func raiseInotify() error {
	const path = "/proc/sys/fs/inotify/max_user_instances"
	current, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the inotify limit: %w", err)
	}
	text := strings.TrimSpace(string(current))
	// Decimal numbers without leading zeros: the longer one is the larger.
	if len(text) > len(inotifyInstances) || len(text) == len(inotifyInstances) && text >= inotifyInstances {
		return nil
	}
	if err := os.WriteFile(path, []byte(inotifyInstances), 0o644); err != nil {
		return fmt.Errorf("raise the inotify limit: %w", err)
	}
	return nil
}

// removeHostNetwork undoes ensureHostNetwork; what is gone already is no error.
// The inotify limit stays: others may have come to rely on it.
func removeHostNetwork(ctx context.Context) error {
	var errs []error
	if _, err := run(ctx, "iptables", "-w", "-n", "-L", firewall); err == nil {
		for {
			if _, err := run(ctx, "iptables", "-w", "-D", "FORWARD", "-j", firewall); err != nil {
				break // no reference is left
			}
		}
		for _, flag := range []string{"-F", "-X"} {
			_, err := run(ctx, "iptables", "-w", flag, firewall)
			errs = append(errs, err)
		}
	}
	routes, err := run(ctx, "ip", "route", "show", "type", "blackhole")
	errs = append(errs, err)
	if strings.Contains(routes, wholeRange) {
		_, err := run(ctx, "ip", "route", "del", "blackhole", wholeRange)
		errs = append(errs, err)
	}
	exists, err := linkExists(bridge)
	errs = append(errs, err)
	if exists {
		_, err := run(ctx, "ip", "link", "del", bridge)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ensureNetwork makes the node's namespace and its cable to the bridge.
func (n node) ensureNetwork(ctx context.Context) error {
	if !isNamespace(n.netns()) {
		// A reboot leaves the file behind without a namespace on it.
		if _, err := os.Lstat(n.netns()); err == nil {
			if _, err := run(ctx, "ip", "netns", "del", n.netnsName()); err != nil {
				return err
			}
		}
		if _, err := run(ctx, "ip", "netns", "add", n.netnsName()); err != nil {
			return err
		}
	}
	if err := n.ensureCable(ctx); err != nil {
		return err
	}
	inside := []string{"-n", n.netnsName()}
	for _, step := range [][]string{
		{"link", "set", n.cable(), "master", bridge, "up"},
		append(inside, "link", "set", "lo", "up"),
		append(inside, "addr", "replace", n.address()+"/24", "dev", "eth0"),
		append(inside, "link", "set", "eth0", "up"),
		// The node's own processes reach Services by way of this route: the
		// kernel wants one before the proxy's rules rewrite the address.
		append(inside, "route", "replace", serviceRange, "via", hostAddress),
		{"route", "replace", n.podCIDR(), "via", n.address()},
	} {
		if _, err := run(ctx, "ip", step...); err != nil {
			return err
		}
	}
	_, err := run(ctx, "nsenter", "--net="+n.netns(), "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	return err
}

func (n node) ensureCable(ctx context.Context) error {
	exists, err := linkExists(n.cable())
	if err != nil {
		return err
	}
	if exists {
		if _, err := run(ctx, "ip", "-n", n.netnsName(), "link", "show", "eth0"); err == nil {
			return nil
		}
		if _, err := run(ctx, "ip", "link", "del", n.cable()); err != nil {
			return err
		}
	}
	_, err = run(ctx, "ip", "link", "add", n.cable(), "type", "veth", "peer", "name", "eth0", "netns", n.netnsName())
	return err
}

// connect tells every node where the pods of the others are. There is no other
// way out of a node, so what is not ours is refused at once instead of lost.
func connect(ctx context.Context, nodes []node) error {
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			if _, err := run(ctx, "ip", "-n", from.netnsName(), "route", "replace", to.podCIDR(), "via", to.address()); err != nil {
				return err
			}
		}
	}
	return nil
}

// isNamespace tells whether a namespace is really mounted on its file.
func isNamespace(file string) bool {
	const nsfs = 0x6e736673
	var info syscall.Statfs_t
	return syscall.Statfs(file, &info) == nil && info.Type == nsfs
}

// elsewhere tells whether a process runs in other namespaces than the node's,
// ones that had the name before. Of a process that is just ending nobody can tell.
func (n node) elsewhere(pid int) bool {
	for kind, file := range map[string]string{"net": n.netns(), "mnt": n.mountns()} {
		want, err := os.Stat(file)
		if err != nil {
			continue
		}
		have, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err == nil && !os.SameFile(want, have) {
			return true
		}
	}
	return false
}

func (n node) removeNetwork(ctx context.Context) error {
	var errs []error
	exists, err := linkExists(n.cable())
	errs = append(errs, err)
	if exists {
		_, err := run(ctx, "ip", "link", "del", n.cable())
		errs = append(errs, err)
	}
	if _, err := os.Lstat(n.netns()); err == nil {
		_, err := run(ctx, "ip", "netns", "del", n.netnsName())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
