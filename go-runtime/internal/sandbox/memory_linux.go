package sandbox

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// memoryAbove reports whether the processes of the namespace, but for this one,
// hold more than a limit. Memory that several share counts once.
func memoryAbove(limit int64) bool {
	return sumOf("status", "RssAnon:", "RssShmem:") > limit && sumOf("smaps_rollup", "Pss_Anon:", "Pss_Shmem:") > limit
}

// sumOf adds up fields, in kB, of a file that /proc has of every process.
func sumOf(file string, fields ...string) (bytes int64) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	self := strconv.Itoa(os.Getpid())
	for _, entry := range entries {
		name := entry.Name()
		if name[0] < '0' || name[0] > '9' || name == self {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", name, file))
		if err != nil {
			continue // it has ended
		}
		for _, field := range fields {
			bytes += kilobytes(text, field) << 10
		}
	}
	return bytes
}

// kilobytes returns the number behind a field's name.
func kilobytes(text []byte, field string) int64 {
	_, rest, found := bytes.Cut(text, []byte("\n"+field))
	if !found {
		return 0
	}
	words := bytes.Fields(rest[:min(len(rest), 40)])
	if len(words) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(words[0]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
