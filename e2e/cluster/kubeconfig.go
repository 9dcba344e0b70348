package main

import (
	"fmt"
	"os"
)

const apiURL = "https://" + hostAddress + ":6443"

type kubeconfig struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Clusters       []namedCluster `json:"clusters"`
	Users          []namedUser    `json:"users"`
	Contexts       []namedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Cert []byte `json:"client-certificate-data"`
		Key  []byte `json:"client-key-data"`
	} `json:"user"`
}

type namedContext struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

// writeKubeconfig writes the credentials of one identity to path. JSON is YAML,
// and the certificates are inside, so the file can be copied anywhere.
func (a *authority) writeKubeconfig(path, file string) error {
	var cluster namedCluster
	var user namedUser
	var both namedContext
	for _, read := range []struct {
		path string
		into *[]byte
	}{
		{a.certPath("ca"), &cluster.Cluster.CA},
		{a.certPath(file), &user.User.Cert},
		{a.keyPath(file), &user.User.Key},
	} {
		content, err := os.ReadFile(read.path)
		if err != nil {
			return fmt.Errorf("read the credentials of %s: %w", file, err)
		}
		*read.into = content
	}
	cluster.Name, cluster.Cluster.Server = "hyperflow", apiURL
	user.Name = file
	both.Name, both.Context.Cluster, both.Context.User = "hyperflow", "hyperflow", file
	return writeJSON(path, 0o600, kubeconfig{
		APIVersion:     "v1",
		Kind:           "Config",
		Clusters:       []namedCluster{cluster},
		Users:          []namedUser{user},
		Contexts:       []namedContext{both},
		CurrentContext: both.Name,
	})
}

func (s *state) kubeconfigOf(file string) string { return s.path("kubeconfig", file+".json") }

// writeKubeconfigs writes one for each client of the API server.
func (s *state) writeKubeconfigs(a *authority, nodes []node) error {
	if err := a.writeKubeconfig(s.kubeconfig(), "admin"); err != nil {
		return err
	}
	files := []string{"controller-manager", "scheduler", "proxy", "dns"}
	for _, n := range nodes {
		files = append(files, n.name())
	}
	for _, file := range files {
		if err := a.writeKubeconfig(s.kubeconfigOf(file), file); err != nil {
			return err
		}
	}
	return nil
}
