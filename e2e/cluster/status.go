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
	ready := s.printNodes(ctx, nodes)
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

func (s *state) printNodes(ctx context.Context, nodes []node) bool {
	api, err := s.newClient()
	if err != nil {
		fmt.Printf("\n%v\n", err)
		return false
	}
	fmt.Println()
	all := true
	for _, n := range nodes {
		node, err := readiness(ctx, api, n)
		switch {
		case err != nil:
			fmt.Printf("%s  %s  %v\n", n.name(), n.address(), err)
		case !node.ready:
			fmt.Printf("%s  %s  NotReady: %s\n", n.name(), n.address(), node.message)
		default:
			fmt.Printf("%s  %s  Ready\n", n.name(), n.address())
		}
		all = all && err == nil && node.ready
	}
	return all
}
