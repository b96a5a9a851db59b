package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The files that the launcher inherits beside the standard ones.
const (
	requestFD  = 3 // a request and the archive of the folder; its end ends the launcher
	responseFD = 4 // a response and the archive of what was left
)

// request is what the launcher is to do. Without Args it tries everything but a command.
type request struct {
	Args      []string `json:"args"`
	Env       []string `json:"env"`
	ReadOnly  []string `json:"read_only"`
	Hidden    []string `json:"hidden"`
	Mounts    []Mount  `json:"mounts"`
	HasFolder bool     `json:"has_folder"`
	Limits    Limits   `json:"limits"`
	// UID is what the command runs as, in its namespace; 0: as the launcher.
	UID int `json:"uid"`
}

// response is how it went. Error is set when the launcher failed.
type response struct {
	Error       string        `json:"error,omitempty"`
	ExitCode    int           `json:"exit_code"`
	Signal      string        `json:"signal,omitempty"`
	TimedOut    bool          `json:"timed_out,omitempty"`
	OutOfMemory bool          `json:"out_of_memory,omitempty"`
	Duration    time.Duration `json:"duration"`
	Calls       bool          `json:"calls,omitempty"`
}

// writeLine writes a value as a line of JSON.
func writeLine(to io.Writer, value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = to.Write(append(line, '\n'))
	return err
}

// maxLine bounds a line: arguments may be long.
const maxLine = 4 << 20

// readLine reads what writeLine wrote.
func readLine(from *bufio.Reader, value any) error {
	var line []byte
	for {
		part, err := from.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return json.Unmarshal(line, value)
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		case len(line) > maxLine:
			return fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
}

// cut keeps the first bytes of what is written to it.
type cut struct {
	limit  int
	kept   []byte
	thrown int64
}

// Write implements io.Writer. It takes everything.
func (c *cut) Write(data []byte) (int, error) {
	keep := min(len(data), c.limit-len(c.kept))
	c.kept = append(c.kept, data[:keep]...)
	c.thrown += int64(len(data) - keep)
	return len(data), nil
}

// text is what was kept, with a note of what was not.
func (c *cut) text() []byte {
	if c.thrown == 0 {
		return c.kept
	}
	return fmt.Appendf(c.kept, "\n[cut here: %d more bytes]\n", c.thrown)
}
