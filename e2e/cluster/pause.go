package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// makePauseImage compiles the pause program and stores it as an image, unless
// that has been done.
func (s *state) makePauseImage(ctx context.Context) error {
	if _, err := os.Stat(s.imagePath(pauseImage)); err == nil {
		return nil
	}
	binary, err := compilePause(ctx)
	if err != nil {
		return err
	}
	image, err := dockerArchive(pauseImage, "pause", binary)
	if err != nil {
		return err
	}
	return s.storeImage(pauseImage, bytes.NewReader(image), func(string) error { return nil })
}

func compilePause(ctx context.Context) ([]byte, error) {
	code, err := source.ReadFile("pause/pause.c")
	if err != nil {
		return nil, fmt.Errorf("read the embedded pause program: %w", err)
	}
	folder, err := os.MkdirTemp("", "hyperflow-pause-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to compile in: %w", err)
	}
	defer os.RemoveAll(folder)
	file, program := filepath.Join(folder, "pause.c"), filepath.Join(folder, "pause")
	if err := writeFile(file, code, 0o644); err != nil {
		return nil, err
	}
	if _, err := runFor(ctx, time.Minute, "gcc", "-static", "-Os", "-s", "-Wall", "-o", program, file); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the pause program: %w", err)
	}
	return binary, nil
}

// dockerArchive makes an image of one static program, in the format of "docker
// save": a layer, a configuration and a list of images, in one tar.
func dockerArchive(name, program string, binary []byte) ([]byte, error) {
	layer, err := tarOf(tarFile{program, binary, 0o755})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       object{"Entrypoint": []string{"/" + program}, "User": "65535:65535"},
		"rootfs":       object{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of %s: %w", name, err)
	}
	manifest, err := json.Marshal([]object{{
		"Config":   "config.json",
		"RepoTags": []string{name},
		"Layers":   []string{"layer.tar"},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the manifest of %s: %w", name, err)
	}
	return tarOf(
		tarFile{"layer.tar", layer, 0o644},
		tarFile{"config.json", config, 0o644},
		tarFile{"manifest.json", manifest, 0o644},
	)
}

type tarFile struct {
	name    string
	content []byte
	mode    int64
}

func tarOf(files ...tarFile) ([]byte, error) {
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, file := range files {
		header := tar.Header{Typeflag: tar.TypeReg, Name: file.name, Size: int64(len(file.content)), Mode: file.mode}
		if err := writer.WriteHeader(&header); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file.name, err)
		}
		if _, err := writer.Write(file.content); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file.name, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("end an archive: %w", err)
	}
	return buffer.Bytes(), nil
}
