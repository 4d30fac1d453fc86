//go:build !unix

package main

import "os/exec"

func apart(*exec.Cmd) {}

func kill(cmd *exec.Cmd) error { return cmd.Process.Kill() }
