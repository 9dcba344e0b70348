// Program is run by tests in the place of a user's program. Each of its
// subcommands behaves well or badly in one way.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// programs is every subcommand: what it takes, what it does, and how.
var programs = []struct {
	name, takes, help string
	run               func(args []string) error
}{
	{"copy", "", "stdin to stdout", copyInput},
	{"count", "", "lines and bytes of stdin or $HYPERFLOW_INPUT to stdout or $HYPERFLOW_OUTPUT", count},
	{"env", "[ARGUMENT...]", "its variables HYPERFLOW_* and JOB_COMPLETION_INDEX, sorted, then its arguments", printEnv},
	{"checkpointed", "N [MILLISECONDS]", "counts to N from $HYPERFLOW_RESUME_FROM on, its count in $HYPERFLOW_CHECKPOINT", countSlowly},
	{"exit", "N", "exits with N", exit},
	{"spew", "N", "N bytes to stderr", spew},
	{"ignore-term", "", "ignores SIGTERM and sleeps", ignoreTerm},
	{"eat", "N", "takes N bytes of memory and touches them", eat},
	{"fork-and-exit", "", "exits with 0 while a child in a session of its own holds stdout and stderr open", forkAndExit},
	{"close-stdout", "", "closes stdout, goes on for a second and exits with 0", closeStdout},
	{"no-read", "", "exits with 0 and never reads stdin", noRead},
	{"no-output", "", "reads stdin and exits with 0 without writing $HYPERFLOW_OUTPUT", noOutput},
	{"big-checkpoint", "", "100 MB to $HYPERFLOW_CHECKPOINT, then sleeps for 3 s", bigCheckpoint},
	{"fill", "[N]", "writes to $TMPDIR until that fails or N bytes are there", fill},
	{"sleep", "SECONDS", "sleeps", sleep},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		for _, p := range programs {
			if p.name == args[0] {
				return p.run(args[1:])
			}
		}
		fmt.Fprintf(os.Stderr, "program: there is no %q\n", args[0])
	}
	for _, p := range programs {
		fmt.Fprintf(os.Stderr, "  %-32s %s\n", p.name+" "+p.takes, p.help)
	}
	os.Exit(2)
	return nil
}

// number reads an argument that must be a number, zero or more.
func number(args []string, place int) (int64, error) {
	if place >= len(args) {
		return 0, errors.New("a number is missing")
	}
	n, err := strconv.ParseInt(args[place], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a number from 0", args[place])
	}
	return n, nil
}

// variable reads an environment variable that must be set.
func variable(name string) (string, error) {
	value := os.Getenv(name)
	if value == "" {
		return "", fmt.Errorf("%s is not set", name)
	}
	return value, nil
}
