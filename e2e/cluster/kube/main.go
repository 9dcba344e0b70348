// Command kube is every component of a Kubernetes cluster in one static binary.
//
// The machines this project is tested on reach package registries only, so the
// components are compiled from their Go modules instead of being pulled as
// images. The first argument selects one; the rest are that component's own.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	// CronJobs with a timeZone must work where the host has no zone database.
	_ "time/tzdata"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// component is one program inside this binary. run sees os.Args as if the
// component had been started under its own name, and returns an exit code.
type component struct {
	name    string
	summary string
	run     func() int
}

func components() []component {
	return []component{
		{"etcd", "one-member key-value store", runEtcd},
		{"apiserver", "Kubernetes API server", func() int { return cli.Run(apiserver.NewAPIServerCommand()) }},
		{"controller-manager", "Kubernetes controllers", func() int { return cli.Run(controllers.NewControllerManagerCommand()) }},
		{"scheduler", "Kubernetes scheduler", func() int { return cli.Run(scheduler.NewSchedulerCommand()) }},
		{"kubelet", "node agent", func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) }},
		{"proxy", "Service proxy of a node", func() int { return cli.Run(proxy.NewProxyCommand()) }},
		{"dns", "CoreDNS", runDNS},
		{"kubectl", "command-line client", runKubectl},
		{"helm", "chart installer", runHelm},
	}
}

func usage(out io.Writer) {
	fmt.Fprintln(out, "usage: kube COMPONENT [ARGUMENT...]\n\ncomponents:")
	for _, c := range components() {
		fmt.Fprintf(out, "  %-20s %s\n", c.name, c.summary)
	}
	fmt.Fprintln(out, "\n\"kube COMPONENT --help\" lists a component's arguments.")
}

// selected returns the component asked for and the arguments it shall see, its
// own name first. A link named kubectl or helm behaves like that program.
func selected(args []string) (component, []string, bool) {
	if c, ok := find(filepath.Base(args[0])); ok {
		return c, args, true
	}
	if len(args) < 2 {
		return component{}, nil, false
	}
	c, ok := find(args[1])
	return c, args[1:], ok
}

func find(name string) (component, bool) {
	for _, c := range components() {
		if c.name == name {
			return c, true
		}
	}
	return component{}, false
}

func main() {
	c, args, ok := selected(os.Args)
	switch {
	case ok:
		os.Args = args
		os.Exit(c.run())
	case len(os.Args) < 2:
		usage(os.Stderr)
		os.Exit(2)
	case os.Args[1] == "help" || os.Args[1] == "--help" || os.Args[1] == "-h":
		usage(os.Stdout)
	default:
		fmt.Fprintf(os.Stderr, "kube: there is no component %q\n\n", os.Args[1])
		usage(os.Stderr)
		os.Exit(2)
	}
}
