// Command cluster runs a real Kubernetes on one machine, for the project's demo
// and end-to-end tests: every node is a network namespace with a containerd and
// a kubelet of its own. It needs root. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// errUsage says that the arguments were wrong and the user has been told so.
var errUsage = errors.New("wrong arguments")

// command is one verb of the tool.
type command struct {
	name    string
	args    string
	summary string
	run     func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"build", "", "compile the Kubernetes binary, unless it is cached", buildCommand},
		{"up", "[--nodes N]", "bring the cluster to Ready, from whatever state it is in", upCommand},
		{"down", "[--purge]", "stop and remove everything that up made", downCommand},
		{"status", "", "show what runs; fails unless the cluster is healthy", statusCommand},
		{"load-image", "NAME ARCHIVE [NAME ARCHIVE...]", "give every node an image from a docker or OCI archive", loadImageCommand},
		{"kubectl", "ARGUMENT...", "run kubectl against the cluster", clientCommand("kubectl")},
		{"helm", "ARGUMENT...", "run helm against the cluster", clientCommand("helm")},
		{"fault", "FAULT [ARGUMENT...]", "do harm to a pod, a node or the control plane, or undo it", faultCommand},
	}
}

func usage(out io.Writer) {
	fmt.Fprintln(out, "usage: cluster COMMAND [ARGUMENT...]\n\ncommands:")
	for _, c := range commands() {
		fmt.Fprintf(out, "  %-12s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(out, "\n\"cluster COMMAND --help\" lists a command's arguments.\n"+
		"State is kept in %s; %s names another folder.\n", defaultDir, dirVariable)
}

func main() {
	if len(os.Args) < 2 {
		usage(os.Stderr)
		os.Exit(2)
	}
	switch os.Args[1] {
	case "help", "--help", "-h":
		usage(os.Stdout)
		return
	}
	for _, c := range commands() {
		if c.name == os.Args[1] {
			os.Exit(exitCode(c))
		}
	}
	fmt.Fprintf(os.Stderr, "cluster: there is no command %q\n\n", os.Args[1])
	usage(os.Stderr)
	os.Exit(2)
}

func exitCode(c command) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := c.run(ctx, os.Args[2:])
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintf(os.Stderr, "cluster %s: %v\n", c.name, err)
	return 1
}

// flagsOf returns the flag set of the named command or fault, which prints the command's
// line of usage when asked for help or given something it does not know.
func flagsOf(name string) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.Usage = func() {
		for _, c := range slices.Concat(commands(), faults()) {
			if c.name == name {
				fmt.Fprintf(set.Output(), "usage: cluster %s\n%s\n", strings.TrimSpace(c.name+" "+c.args), c.summary)
			}
		}
		set.PrintDefaults()
	}
	return set
}

// parse reads flags and checks the number of arguments left over; most < 0
// means there is no upper bound.
func parse(set *flag.FlagSet, args []string, least, most int) error {
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if set.NArg() < least || (most >= 0 && set.NArg() > most) {
		fmt.Fprintf(set.Output(), "cluster %s: wrong number of arguments\n", set.Name())
		set.Usage()
		return errUsage
	}
	return nil
}
