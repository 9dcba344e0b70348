package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func copyInput([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

func count([]string) error {
	input := os.Stdin
	if name := os.Getenv("HYPERFLOW_INPUT"); name != "" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		input = file
	}
	var lines, size int
	for buffer := make([]byte, 1<<16); ; {
		n, err := input.Read(buffer)
		size += n
		lines += bytes.Count(buffer[:n], []byte{'\n'})
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read the input: %w", err)
		}
	}
	text := fmt.Appendf(nil, "%d %d\n", lines, size)
	if name := os.Getenv("HYPERFLOW_OUTPUT"); name != "" {
		return os.WriteFile(name, text, 0o644)
	}
	_, err := os.Stdout.Write(text)
	return err
}

func printEnv(args []string) error {
	variables := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return !strings.HasPrefix(variable, "HYPERFLOW_") && !strings.HasPrefix(variable, "JOB_COMPLETION_INDEX=")
	})
	slices.Sort(variables)
	for _, line := range append(variables, args...) {
		if _, err := fmt.Println(line); err != nil {
			return err
		}
	}
	return nil
}

// countSlowly says on stderr which numbers it did in this attempt, so that a
// test sees what was done twice.
func countSlowly(args []string) error {
	limit, err := number(args, 0)
	if err != nil {
		return err
	}
	pause := int64(200)
	if len(args) > 1 {
		if pause, err = number(args, 1); err != nil {
			return err
		}
	}
	checkpoint, err := variable("HYPERFLOW_CHECKPOINT")
	if err != nil {
		return err
	}
	done, err := resume()
	if err != nil {
		return err
	}
	for done < limit {
		time.Sleep(time.Duration(pause) * time.Millisecond)
		done++
		fmt.Fprintln(os.Stderr, done)
		// Aside and renamed: whoever reads it finds all of one count.
		aside := checkpoint + ".new"
		if err := os.WriteFile(aside, strconv.AppendInt(nil, done, 10), 0o644); err != nil {
			return fmt.Errorf("write the checkpoint: %w", err)
		}
		if err := os.Rename(aside, checkpoint); err != nil {
			return fmt.Errorf("keep the checkpoint: %w", err)
		}
	}
	_, err = fmt.Println(done)
	return err
}

// resume reads the count of an earlier attempt, if there was one.
func resume() (int64, error) {
	name := os.Getenv("HYPERFLOW_RESUME_FROM")
	if name == "" {
		return 0, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, fmt.Errorf("read where to go on: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

func sleep(args []string) error {
	seconds, err := number(args, 0)
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(seconds) * time.Second)
	return nil
}
