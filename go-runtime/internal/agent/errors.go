package agent

import (
	"fmt"
	"strings"

	"github.com/djangobridge/djangobridge/go-runtime/internal/violation"
)

// UnknownAgentError is returned for an agent that is not registered.
type UnknownAgentError struct {
	AgentID string
	// Known are the registered agents, sorted.
	Known []string
}

func (e *UnknownAgentError) Error() string {
	return fmt.Sprintf("no agent is called %q%s; known are %s",
		clip(e.AgentID), suggestion(e.AgentID, e.Known), strings.Join(e.Known, ", "))
}

// UnknownTaskTypeError is returned for a task type that is not built in, or that the agent does not take.
type UnknownTaskTypeError struct {
	TaskType string
	// AgentID is the agent that was asked, or empty for a task without one.
	AgentID string
	// Known are the task types that would have been taken, sorted.
	Known []string
	// Agents are those that take the task type, sorted.
	Agents []string
}

func (e *UnknownTaskTypeError) Error() string {
	who := "no built-in task"
	if e.AgentID != "" {
		who = "no task type of agent " + e.AgentID
	}
	text := fmt.Sprintf("%s is called %q%s; known are %s",
		who, clip(e.TaskType), suggestion(e.TaskType, e.Known), strings.Join(e.Known, ", "))
	if len(e.Agents) > 0 {
		text += fmt.Sprintf("; %q is a task type of agent %s", e.TaskType, strings.Join(e.Agents, " and "))
	}
	return text
}

// maxQuoted is how many bytes of a caller's own text an error repeats.
const maxQuoted = 64

func clip(text string) string { return violation.Clip(text, maxQuoted) }

// suggestion returns `, did you mean "…"?` for the known name nearest to one
// that was mistyped, or nothing when none is near.
func suggestion(mistyped string, known []string) string {
	if len(mistyped) > maxQuoted {
		return ""
	}
	nearest, least := "", max(2, len(mistyped)/4)+1
	for _, name := range known {
		if d := distance(mistyped, name); d < least {
			nearest, least = name, d
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", nearest)
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// UnknownGraphError is returned for a graph, or a chain, that there is not.
type UnknownGraphError struct {
	GraphID string
	// Known are those there are, sorted.
	Known []string
}

func (e *UnknownGraphError) Error() string {
	return fmt.Sprintf("no graph is called %q%s; known are %s",
		clip(e.GraphID), suggestion(e.GraphID, e.Known), strings.Join(e.Known, ", "))
}
