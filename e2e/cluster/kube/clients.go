package main

import (
	"errors"
	"log/slog"
	"os"

	_ "github.com/coredns/coredns/core/plugin"
	"github.com/coredns/coredns/coremain"
	helmcmd "helm.sh/helm/v4/pkg/cmd"
	helmkube "helm.sh/helm/v4/pkg/kube"
	"k8s.io/component-base/cli"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// runDNS returns only when CoreDNS was told to stop; a failure ends the process
// inside CoreDNS with its own message.
func runDNS() int {
	coremain.Run()
	return 0
}

func runKubectl() int {
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		// Prints the error the way kubectl does and ends with its exit code.
		util.CheckErr(err)
	}
	return 0
}

func runHelm() int {
	// Otherwise the binary's name becomes the field manager, and charts
	// installed here would conflict with those installed by another helm.
	helmkube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Error("prepare helm", "error", err)
		return 1
	}
	if err := command.Execute(); err != nil {
		var failed helmcmd.CommandError
		if errors.As(err, &failed) {
			return failed.ExitCode
		}
		return 1
	}
	return 0
}
