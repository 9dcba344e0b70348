package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// longTime is longer than any test waits.
const longTime = time.Hour

func exit(args []string) error {
	code, err := number(args, 0)
	if err != nil {
		return err
	}
	os.Exit(int(code))
	return nil
}

func spew(args []string) error {
	size, err := number(args, 0)
	if err != nil {
		return err
	}
	line := append(bytes.Repeat([]byte{'x'}, 79), '\n')
	for size > 0 {
		n := min(size, int64(len(line)))
		if _, err := os.Stderr.Write(line[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

func ignoreTerm([]string) error {
	signal.Ignore(syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "ignoring SIGTERM")
	time.Sleep(longTime)
	return nil
}

func eat(args []string) error {
	size, err := number(args, 0)
	if err != nil {
		return err
	}
	const piece = 1 << 20
	var eaten [][]byte
	for left := size; left > 0; left -= piece {
		memory := make([]byte, min(left, piece))
		for i := 0; i < len(memory); i += os.Getpagesize() {
			memory[i] = 1
		}
		eaten = append(eaten, memory)
	}
	fmt.Fprintf(os.Stderr, "ate %d bytes\n", size)
	runtime.KeepAlive(eaten)
	return nil
}

func forkAndExit([]string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, "sleep", fmt.Sprint(int(longTime.Seconds())))
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start a child: %w", err)
	}
	fmt.Fprintln(os.Stderr, "child", child.Process.Pid)
	return nil
}

func closeStdout([]string) error {
	if err := os.Stdout.Close(); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return nil
}

func noRead([]string) error { return nil }

func noOutput([]string) error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func bigCheckpoint([]string) error {
	name, err := variable("HYPERFLOW_CHECKPOINT")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, bytes.Repeat([]byte{'x'}, 100_000_000), 0o644); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	time.Sleep(3 * time.Second)
	return nil
}

func fill(args []string) error {
	limit := int64(1) << 62
	if len(args) > 0 {
		var err error
		if limit, err = number(args, 0); err != nil {
			return err
		}
	}
	folder, err := variable("TMPDIR")
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(folder, "filled"))
	if err != nil {
		return err
	}
	defer file.Close()
	piece := make([]byte, 1<<20)
	for size := int64(0); size < limit; {
		n, err := file.Write(piece[:min(limit-size, int64(len(piece)))])
		size += int64(n)
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", size, err)
		}
	}
	return nil
}
