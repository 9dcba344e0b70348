package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// faults lists what can be done to a running cluster. "up" undoes what was done
// to nodes and to the control plane, and "down" leaves nothing of it behind.
func faults() []command {
	const pod, node = "--namespace NS --pod POD [--container C]", "NODE"
	return []command{
		{"fault kill", pod, "SIGKILL every process of a pod's containers", podFaultCommand("kill", killGroup)},
		{"fault freeze", pod, "stop every process of a pod's containers where it is", podFaultCommand("freeze", freezeGroup)},
		{"fault thaw", pod, "continue what freeze stopped", podFaultCommand("thaw", thawGroup)},
		{"fault squeeze", pod, "take memory away until the kernel kills a process of it", podFaultCommand("squeeze", squeezeGroup)},
		{"fault stop-node", node, "kill every process of a node and cut its cable, at once", nodeFaultCommand("stop-node", (*state).stopNode)},
		{"fault start-node", node, "start a stopped node and wait until it is Ready", nodeFaultCommand("start-node", (*state).startNode)},
		{"fault cut-link", node, "cut a node's cable; its processes run on", nodeFaultCommand("cut-link", (*state).cutLink)},
		{"fault heal-link", node, "mend the cable and wait until the node's kubelet can be reached", nodeFaultCommand("heal-link", (*state).healLink)},
		{"fault stop-apiserver", "", "SIGKILL the API server", stopDaemonCommand("apiserver")},
		{"fault start-apiserver", "", "start the API server and wait until it is ready", startDaemonCommand("apiserver", (*state).startAPIServerAgain)},
		{"fault stop-etcd", "", "SIGKILL etcd", stopDaemonCommand("etcd")},
		{"fault start-etcd", "", "start etcd and wait until it is healthy and the API server has found it", startDaemonCommand("etcd", (*state).startStoreAgain)},
		{"fault save-etcd", "FILE", "write what etcd holds to FILE, pausing it for the moment that takes", storeFaultCommand("save-etcd", (*state).saveStore)},
		{"fault restore-etcd", "FILE", "put back what etcd held when FILE was saved", storeFaultCommand("restore-etcd", (*state).restoreStore)},
	}
}

func faultCommand(ctx context.Context, args []string) error {
	if len(args) == 0 {
		faultUsage(os.Stderr)
		return errUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		faultUsage(os.Stdout)
		return nil
	}
	for _, f := range faults() {
		if f.name == "fault "+args[0] {
			return f.run(ctx, args[1:])
		}
	}
	fmt.Fprintf(os.Stderr, "cluster fault: there is no fault %q\n\n", args[0])
	faultUsage(os.Stderr)
	return errUsage
}

func faultUsage(out io.Writer) {
	fmt.Fprintln(out, "usage: cluster fault FAULT [ARGUMENT...]\n\nfaults:")
	for _, f := range faults() {
		fmt.Fprintf(out, "  %-16s %s\n", strings.TrimPrefix(f.name, "fault "), f.summary)
	}
	fmt.Fprintln(out, "\n\"cluster fault FAULT --help\" lists a fault's arguments.\n"+
		"A fault that did not happen is an error. \"cluster up\" starts and mends what was stopped and cut.")
}

// listed writes pids the way a shell takes them.
func listed(pids []int) string { return strings.Trim(fmt.Sprint(pids), "[]") }
