package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// client speaks to the API server as the administrator.
type client struct{ http *http.Client }

// newClient reads the credentials up leaves in the state folder.
func (s *state) newClient() (*client, error) {
	a := authority{dir: s.path("pki")}
	pair, err := tls.LoadX509KeyPair(a.certPath("admin"), a.keyPath("admin"))
	if err != nil {
		return nil, fmt.Errorf("load the administrator's certificate, is the cluster up?: %w", err)
	}
	root, err := os.ReadFile(a.certPath("ca"))
	if err != nil {
		return nil, fmt.Errorf("load the authority's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		return nil, errors.New("load the authority's certificate: no certificate in it")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
	return &client{http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

// get reads an object; into may be nil when only the answer counts.
func (c *client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

// apply creates an object or makes it what body says.
func (c *client) apply(ctx context.Context, path string, body any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return c.do(ctx, http.MethodPatch, path+"?fieldManager=hyperflow-cluster&force=true", content, nil)
}

func (c *client) do(ctx context.Context, method, path string, body []byte, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, apiURL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("prepare %s %s: %w", method, path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the API server's answer to %s %s: %w", method, path, err)
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: the API server answers %s: %s", method, path, response.Status, explanation(content))
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("decode the API server's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// explanation takes the message out of an API server's refusal.
func explanation(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) == nil && status.Message != "" {
		return status.Message
	}
	return fmt.Sprintf("%.300q", answer)
}

// answers makes a probe: the address must answer 200 to a GET. Certificates are
// not checked, as the components that are asked sign their own.
func answers(url string) func(context.Context) error {
	probe := &http.Client{
		Timeout: 3 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		},
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("prepare a probe of %s: %w", url, err)
		}
		response, err := probe.Do(request)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if err := response.Body.Close(); err != nil {
			return fmt.Errorf("end the probe of %s: %w", url, err)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("probe %s: it answers %s", url, response.Status)
		}
		return nil
	}
}
