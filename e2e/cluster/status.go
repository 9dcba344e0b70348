package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// isReady is what status says of a node with which all is well.
const isReady = "Ready"

var errUnhealthy = errors.New("the cluster is not healthy")

// statusCommand takes no lock: it must work while up is at it.
func statusCommand(ctx context.Context, args []string) error {
	if err := parse(flagsOf("status"), args, 0, 0); err != nil {
		return err
	}
	s, err := findState()
	if err != nil {
		return err
	}
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		fmt.Println("the cluster is down")
		return errUnhealthy
	}
	processes, err := s.printDaemons(nodes)
	if err != nil {
		return err
	}
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	ready, err := s.printNodes(ctx, groups, nodes)
	if err != nil {
		return err
	}
	fmt.Printf("\nkubeconfig  %s\nclients     %s\nlogs        %s\n", s.kubeconfig(), s.path("bin"), s.path("log"))
	if !processes || !ready {
		return errUnhealthy
	}
	return nil
}

func (s *state) printDaemons(nodes []node) (bool, error) {
	names := append([]string{}, controlDaemons...)
	for _, n := range nodes {
		for _, kind := range nodeDaemons {
			names = append(names, n.daemon(kind))
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DAEMON\tPID\tAGE\tMEMORY")
	all := true
	for _, name := range names {
		r, running, err := s.find(name)
		if err != nil {
			return false, err
		}
		if !running {
			all = false
			fmt.Fprintf(table, "%s\tnot running\t\t\n", name)
			continue
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", name, r.PID, time.Since(r.Started).Round(time.Second), memoryOf(r.PID))
	}
	return all, table.Flush()
}

// memoryOf returns a process's resident memory, or a dash if it has just ended.
func memoryOf(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "-"
	}
	for line := range strings.Lines(string(content)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			return strings.TrimSpace(value)
		}
	}
	return "-"
}

func (s *state) printNodes(ctx context.Context, groups cgroups, nodes []node) (bool, error) {
	api, err := s.newClient()
	if err != nil {
		return false, err
	}
	fmt.Println()
	all := true
	for _, n := range nodes {
		trouble, err := n.trouble(groups)
		if err != nil {
			return false, err
		}
		said := saidOf(ctx, api, n)
		all = all && trouble == "" && said == isReady
		if trouble != "" {
			// Not the same thing: the API server learns of it after a while.
			said = fmt.Sprintf("%s (API server: %s)", trouble, said)
		}
		fmt.Printf("%s  %s  %s\n", n.name(), n.address(), said)
	}
	return all, nil
}

// saidOf is what the API server says of a node.
func saidOf(ctx context.Context, api *client, n node) string {
	node, err := readiness(ctx, api, n)
	switch {
	case err != nil:
		return err.Error()
	case !node.ready:
		return "NotReady: " + node.message
	}
	return isReady
}

// trouble tells what a fault has done to the node, as far as this machine sees;
// nothing if nothing is wrong.
func (n node) trouble(groups cgroups) (string, error) {
	stopped, err := n.stopped(groups)
	if err != nil {
		return "", err
	}
	if stopped {
		return "STOPPED", nil
	}
	cut, err := n.linkCut()
	if err != nil {
		return "", err
	}
	if cut {
		return "LINK CUT", nil
	}
	return "", nil
}
