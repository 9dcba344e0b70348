package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
)

// etcdOptions are the few settings a one-member etcd needs.
type etcdOptions struct {
	dataDir   string
	clientURL string
	peerURL   string
	noFsync   bool
}

func runEtcd() int {
	var options etcdOptions
	command := &cobra.Command{
		Use:          "etcd",
		Short:        "Run a one-member etcd until it is told to stop",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return serveEtcd(options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.dataDir, "data-dir", "etcd", "folder the data is kept in")
	flags.StringVar(&options.clientURL, "client-url", "http://127.0.0.1:2379", "address clients connect to")
	flags.StringVar(&options.peerURL, "peer-url", "http://127.0.0.1:2380", "address members would connect to")
	flags.BoolVar(&options.noFsync, "unsafe-no-fsync", false,
		"do not wait for the disk; survives the death of the process, not of the machine")
	return cli.Run(command)
}

func (o etcdOptions) config() (*embed.Config, error) {
	client, err := url.Parse(o.clientURL)
	if err != nil {
		return nil, fmt.Errorf("read --client-url: %w", err)
	}
	peer, err := url.Parse(o.peerURL)
	if err != nil {
		return nil, fmt.Errorf("read --peer-url: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = o.dataDir
	config.ListenClientUrls = []url.URL{*client}
	config.AdvertiseClientUrls = []url.URL{*client}
	config.ListenPeerUrls = []url.URL{*peer}
	config.AdvertisePeerUrls = []url.URL{*peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = o.noFsync
	return config, nil
}

func serveEtcd(options etcdOptions) error {
	config, err := options.config()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", options.dataDir, err)
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("serve etcd in %s: %w", options.dataDir, err)
	case <-server.Server.StopNotify():
		return errors.New("etcd stopped by itself")
	}
}
